// SPDX-License-Identifier: Apache-2.0
//
// What goes into the engine and what comes out of it.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "turbomind/core/error.h"
#include "turbomind/engine/token_guide.h"

namespace turbomind {

// Which positions' rows (logits or hidden states) are returned.
enum class OutputRows {
  kNone,
  kGeneration,  // the positions that generated tokens were drawn from
  kAll,         // those of the prompt, too
};
// "none", "generation", "all". Throws kInvalidArgument naming the parameter.
OutputRows parse_output_rows(std::string_view parameter, std::string_view word);
const char* to_string(OutputRows rows);

inline constexpr int32_t kMaxLogprobs = 1024;

// Positions [begin, end) of a sequence, prompt and answer, whose KV depends on more than the tokens up to them: the
// placeholders of a picture (key: a digest of its content), or a whole sequence under an adapter (key: its id).
struct CacheKey {
  int64_t begin = 0;
  int64_t end = 0;  // may lie beyond the sequence's end
  std::string key;

  auto operator<=>(const CacheKey&) const = default;
};

struct SamplingParams {
  int64_t max_new_tokens = 512;  // 0: only the prompt is computed
  int64_t min_new_tokens = 0;    // stop and end-of-sequence tokens are not drawn before so many tokens
  float temperature = 0.0F;      // 0 = greedy
  int32_t top_k = 0;             // 0 = all
  float top_p = 1.0F;
  float min_p = 0.0F;
  float repetition_penalty =
      1.0F;  // of tokens in the prompt or generated; 1 = none (Keskar et al. 2019, arXiv:1909.05858)
  float presence_penalty = 0.0F;        // of generated tokens, once
  float frequency_penalty = 0.0F;       // of generated tokens, times their count
  std::map<int32_t, float> logit_bias;  // added to the logit; -inf forbids the token
  std::vector<int32_t> bad_token_ids;   // never drawn
  // Of two tokens or more each: the last is not drawn where the ones before it were, right before.
  std::vector<std::vector<int32_t>> bad_token_sequences;
  std::vector<int32_t> allowed_token_ids;  // if not empty, nothing else is drawn
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  std::vector<int32_t> eos_token_ids;  // the model's
  std::optional<uint64_t> seed;        // of sequence 0; sequence i takes seed + i. None: drawn by the engine
  int32_t n = 1;                       // sequences sampled from the prompt
  int32_t logprobs = -1;               // alternatives per generated token; -1 = no logprobs. Of the raw logits
  int32_t prompt_logprobs = -1;        // the same for prompt tokens
  OutputRows output_logits = OutputRows::kNone;
  OutputRows output_last_hidden_state = OutputRows::kNone;
  int32_t priority = 0;              // higher is served first and preempted last
  double timeout = 0.0;              // seconds from submission after which the request fails; 0 = none
  std::string tenant;                // whose share of the engine it uses
  double tenant_weight = 1.0;        // what that share is beside other tenants'
  std::string cache_salt;            // prefixes are shared only within one salt
  std::vector<CacheKey> cache_keys;  // prefixes are shared only where these agree, too; may overlap
  // Restricts every draw; each of the n sequences takes a clone. Goes with no other rule on which tokens may be drawn.
  std::shared_ptr<const TokenGuide> guide;
};

// Throws kInvalidArgument naming the parameter, what was expected and what was found; also where the lists of tokens
// together leave a draw nothing to take.
void validate(const SamplingParams& params, int32_t vocab_size, int32_t max_num_seqs);
// Throws kInvalidArgument for an empty prompt or a token outside the vocabulary, kPromptTooLong unless at least one
// more token fits into max_len.
void validate_prompt(const std::vector<int32_t>& token_ids, int32_t vocab_size, int64_t max_len);

struct TokenLogprob {
  int32_t token_id;
  float logprob;
  int32_t rank;  // number of tokens with a larger logit
};

// The chosen (or prompt) token and its alternatives, likeliest first.
struct PositionLogprobs {
  TokenLogprob token;
  std::vector<TokenLogprob> top;
};

// Rows of float32 values of one request, [rows, cols] row-major.
struct RowBlock {
  int64_t cols = 0;
  std::vector<float> values;

  int64_t rows() const { return cols ? static_cast<int64_t>(values.size()) / cols : 0; }
  void append(const RowBlock& other);
};

enum class FinishReason { kNone, kStop, kLength, kCancelled, kError };
// "", "stop", "length", "cancelled", "error".
const char* to_string(FinishReason reason);

// Seconds on the steady clock; 0 = has not happened.
struct RequestTimes {
  double arrival = 0.0;
  double first_scheduled = 0.0;
  double first_token = 0.0;
  double finish = 0.0;
};

// What is new of one sequence since the last output the caller has seen.
struct Output {
  uint64_t request_id = 0;
  int32_t index = 0;                              // of the request's n sequences
  std::vector<int32_t> token_ids;                 // without the token that stopped the sequence
  std::vector<PositionLogprobs> logprobs;         // one per token, if asked for
  std::vector<PositionLogprobs> prompt_logprobs;  // of prompt tokens 1.., in order; sequence 0 only
  bool finished = false;
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<int32_t> stop_token_id;  // what stopped it, if a token did
  std::optional<ErrorCode> error_code;   // with FinishReason::kError
  std::string error_message;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;   // of the prompt, taken from the prefix cache
  int64_t preemptions = 0;     // times the sequence had to give its KV blocks back so far
  RowBlock logits;             // [positions, vocab]; prompt rows come with sequence 0 only
  RowBlock last_hidden_state;  // [positions, hidden]; likewise
  RequestTimes times;

  // Appends a later output of the same sequence; where memory fails, both stay as they were.
  void merge(Output&& later);
};

}  // namespace turbomind
