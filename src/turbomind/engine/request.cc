// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/request.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

namespace turbomind {
namespace {

template <class T>
void require(bool condition, const char* name, const char* expected, const T& found) {
  check(condition, ErrorCode::kInvalidArgument, name, ": expected ", expected, ", found ", found);
}

void require_token(const char* name, int32_t token, int32_t vocab_size) {
  check(token >= 0 && token < vocab_size, ErrorCode::kInvalidArgument, name, ": expected token ids in [0, ", vocab_size,
        "), found ", token);
}

void require_tokens(const char* name, const std::vector<int32_t>& tokens, int32_t vocab_size) {
  for (const int32_t token : tokens) require_token(name, token, vocab_size);
}

void validate_token_lists(const SamplingParams& params, int32_t vocab_size) {
  for (const auto& [token, bias] : params.logit_bias) {
    require_token("logit_bias", token, vocab_size);
    require(std::isfinite(bias) || bias == -std::numeric_limits<float>::infinity(), "logit_bias",
            "finite values or -inf", bias);
  }
  require_tokens("bad_token_ids", params.bad_token_ids, vocab_size);
  for (const std::vector<int32_t>& sequence : params.bad_token_sequences) {
    require(sequence.size() >= 2, "bad_token_sequences", "two tokens or more each", sequence.size());
    require_tokens("bad_token_sequences", sequence, vocab_size);
  }
  require_tokens("allowed_token_ids", params.allowed_token_ids, vocab_size);
  require_tokens("stop_token_ids", params.stop_token_ids, vocab_size);
  require_tokens("eos_token_ids", params.eos_token_ids, vocab_size);
}

// Every draw must have a token to take. Stop tokens are held back at first, so the first draw has the fewest; all bad
// sequences could be about to end at once.
void validate_choice(const SamplingParams& params, int32_t vocab_size) {
  std::vector<bool> open(static_cast<size_t>(vocab_size), params.allowed_token_ids.empty());
  const auto set = [&](const std::vector<int32_t>& tokens, bool value) {
    for (const int32_t token : tokens) open[static_cast<size_t>(token)] = value;
  };
  set(params.allowed_token_ids, true);
  set(params.bad_token_ids, false);
  for (const std::vector<int32_t>& sequence : params.bad_token_sequences) set({sequence.back()}, false);
  for (const auto& [token, bias] : params.logit_bias) {
    if (std::isinf(bias)) open[static_cast<size_t>(token)] = false;
  }
  if (params.min_new_tokens > 0) {
    set(params.stop_token_ids, false);
    if (!params.ignore_eos) set(params.eos_token_ids, false);
  }
  if (params.max_new_tokens == 0 || std::find(open.begin(), open.end(), true) != open.end()) return;
  const char* name = !params.allowed_token_ids.empty()     ? "allowed_token_ids"
                     : !params.bad_token_ids.empty()       ? "bad_token_ids"
                     : !params.bad_token_sequences.empty() ? "bad_token_sequences"
                     : !params.logit_bias.empty()          ? "logit_bias"
                                                           : "min_new_tokens";
  require(false, name,
          "a token left to generate that neither bad_token_ids nor a logit_bias of -inf forbids, nor min_new_tokens "
          "as one that stops, and with which none of bad_token_sequences ends",
          "none");
}

// A guide decides alone what may be drawn: a second opinion could leave nothing.
void validate_guide(const SamplingParams& params) {
  if (!params.guide) return;
  constexpr const char* kNothing = "nothing beside a guide";
  require(params.min_new_tokens == 0, "min_new_tokens", "0 beside a guide", params.min_new_tokens);
  require(!params.ignore_eos, "ignore_eos", "false beside a guide", "true");
  require(!params.eos_token_ids.empty(), "eos_token_ids", "at least one token beside a guide", "none");
  require(params.bad_token_ids.empty(), "bad_token_ids", kNothing, params.bad_token_ids.size());
  require(params.bad_token_sequences.empty(), "bad_token_sequences", kNothing, params.bad_token_sequences.size());
  require(params.allowed_token_ids.empty(), "allowed_token_ids", kNothing, params.allowed_token_ids.size());
  for (const auto& [token, bias] : params.logit_bias) {
    require(std::isfinite(bias), "logit_bias", "finite values beside a guide", bias);
  }
}

void validate_lengths(const SamplingParams& params, int32_t vocab_size, int32_t max_num_seqs) {
  require(params.max_new_tokens >= 0, "max_new_tokens", "at least 0", params.max_new_tokens);
  require(params.min_new_tokens >= 0 && params.min_new_tokens <= params.max_new_tokens, "min_new_tokens",
          "a value in [0, max_new_tokens]", params.min_new_tokens);
  check(params.n >= 1 && params.n <= max_num_seqs, ErrorCode::kInvalidArgument,
        "n: expected a value in [1, max_num_seqs = ", max_num_seqs, "], found ", params.n);
  const int32_t most = std::min(kMaxLogprobs, vocab_size);
  check(params.logprobs >= -1 && params.logprobs <= most, ErrorCode::kInvalidArgument,
        "logprobs: expected a value in [-1, ", most, "], found ", params.logprobs);
  check(params.prompt_logprobs >= -1 && params.prompt_logprobs <= most, ErrorCode::kInvalidArgument,
        "prompt_logprobs: expected a value in [-1, ", most, "], found ", params.prompt_logprobs);
  require(std::isfinite(params.timeout) && params.timeout >= 0.0, "timeout", "finite seconds, at least 0",
          params.timeout);
  require(params.tenant_weight >= 1e-3 && params.tenant_weight <= 1e3, "tenant_weight", "a value in [0.001, 1000]",
          params.tenant_weight);
}

// Room for so many more; grows geometrically.
template <class T>
void make_room(std::vector<T>& to, size_t count) {
  const size_t wanted = to.size() + count;
  if (wanted > to.capacity()) to.reserve(std::max(wanted, 2 * to.capacity()));
}

template <class T>
void append(std::vector<T>& to, std::vector<T>&& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

OutputRows parse_output_rows(std::string_view parameter, std::string_view word) {
  for (const OutputRows rows : {OutputRows::kNone, OutputRows::kGeneration, OutputRows::kAll}) {
    if (word == to_string(rows)) return rows;
  }
  fail(ErrorCode::kInvalidArgument, parameter, ": expected none, generation or all, found '", word, "'");
}

const char* to_string(OutputRows rows) {
  switch (rows) {
    case OutputRows::kNone:
      return "none";
    case OutputRows::kGeneration:
      return "generation";
    case OutputRows::kAll:
      return "all";
  }
  return "unknown";
}

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

void validate(const SamplingParams& params, int32_t vocab_size, int32_t max_num_seqs) {
  validate_lengths(params, vocab_size, max_num_seqs);
  // Negated comparisons would let NaN through.
  require(std::isfinite(params.temperature) && params.temperature >= 0.0F, "temperature", "a finite value, at least 0",
          params.temperature);
  require(params.top_k >= 0, "top_k", "at least 0", params.top_k);
  require(params.top_p > 0.0F && params.top_p <= 1.0F, "top_p", "a value in (0, 1]", params.top_p);
  require(params.min_p >= 0.0F && params.min_p <= 1.0F, "min_p", "a value in [0, 1]", params.min_p);
  require(std::isfinite(params.repetition_penalty) && params.repetition_penalty > 0.0F, "repetition_penalty",
          "a finite value above 0", params.repetition_penalty);
  require(std::isfinite(params.presence_penalty), "presence_penalty", "a finite value", params.presence_penalty);
  require(std::isfinite(params.frequency_penalty), "frequency_penalty", "a finite value", params.frequency_penalty);
  validate_token_lists(params, vocab_size);
  validate_choice(params, vocab_size);
  for (const CacheKey& key : params.cache_keys) {
    require(key.begin >= 0 && key.begin < key.end, "cache_keys", "positions with 0 <= begin < end",
            std::to_string(key.begin) + " .. " + std::to_string(key.end));
    require(!key.key.empty(), "cache_keys", "a key", "an empty one");
  }
  validate_guide(params);
}

void validate_prompt(const std::vector<int32_t>& token_ids, int32_t vocab_size, int64_t max_len) {
  require(!token_ids.empty(), "prompt_token_ids", "at least one token", "none");
  const auto length = static_cast<int64_t>(token_ids.size());
  check(length < max_len, ErrorCode::kPromptTooLong, "prompt_token_ids: expected at most ", max_len - 1,
        " tokens (session_len and KV cache allow ", max_len, " with the answer), found ", length);
  require_tokens("prompt_token_ids", token_ids, vocab_size);
}

void RowBlock::append(const RowBlock& other) {
  if (other.values.empty()) return;
  cols = other.cols;
  values.insert(values.end(), other.values.begin(), other.values.end());
}

void Output::merge(Output&& later) {
  // First what may throw.
  make_room(token_ids, later.token_ids.size());
  make_room(logprobs, later.logprobs.size());
  make_room(prompt_logprobs, later.prompt_logprobs.size());
  make_room(logits.values, later.logits.values.size());
  make_room(last_hidden_state.values, later.last_hidden_state.values.size());
  append(token_ids, std::move(later.token_ids));
  append(logprobs, std::move(later.logprobs));
  append(prompt_logprobs, std::move(later.prompt_logprobs));
  logits.append(later.logits);
  last_hidden_state.append(later.last_hidden_state);
  finished = later.finished;
  finish_reason = later.finish_reason;
  stop_token_id = later.stop_token_id;
  error_code = later.error_code;
  error_message = std::move(later.error_message);
  cached_tokens = later.cached_tokens;
  preemptions = later.preemptions;
  times = later.times;
}

}  // namespace turbomind
