// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/output_collector.h"

#include <algorithm>
#include <utility>

namespace turbomind {
namespace {

bool contains(const std::vector<int32_t>& tokens, int32_t token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

}  // namespace

bool ends_sequence(const SamplingParams& params, int32_t token) {
  return contains(params.stop_token_ids, token) || (!params.ignore_eos && contains(params.eos_token_ids, token));
}

FinishReason finish_reason(const Sequence& sequence, int32_t token) {
  const SamplingParams& params = sequence.params();
  const auto length = static_cast<int64_t>(sequence.tokens.size());
  // The minimum counts tokens before a stop, so the one that stops is not among them.
  const bool may_stop = length - sequence.prompt_len() > params.min_new_tokens;
  if (may_stop && ends_sequence(params, token)) return FinishReason::kStop;
  return length >= sequence.request->max_len ? FinishReason::kLength : FinishReason::kNone;
}

void OutputCollector::add_token(Sequence& sequence, int32_t token, FinishReason reason, double now) {
  if (sequence.times.first_token == 0.0) sequence.times.first_token = now;
  Output& out = output(sequence);
  if (reason == FinishReason::kStop) {
    out.stop_token_id = token;
  } else {
    out.token_ids.push_back(token);
  }
  out.times = sequence.times;
  if (reason != FinishReason::kNone) add_finish(sequence, reason, now);
}

void OutputCollector::add_logprobs(const Sequence& sequence, PositionLogprobs logprobs) {
  output(sequence).logprobs.push_back(std::move(logprobs));
}

void OutputCollector::add_rows(const Sequence& sequence, GroupRows rows) {
  Output& out = output(sequence);
  out.logits.append(rows.logits);
  out.last_hidden_state.append(rows.hidden);
  for (PositionLogprobs& position : rows.prompt_logprobs) out.prompt_logprobs.push_back(std::move(position));
}

void OutputCollector::add_finish(Sequence& sequence, FinishReason reason, double now) {
  sequence.times.finish = now;
  Output& out = output(sequence);
  out.finished = true;
  out.finish_reason = reason;
  out.times = sequence.times;
}

void OutputCollector::add_error(Sequence& sequence, const Error& error, double now) {
  Output& out = output(sequence);
  out.error_message = error.what();
  out.error_code = error.code();
  add_finish(sequence, FinishReason::kError, now);
}

Output& OutputCollector::output(const Sequence& sequence) {
  const auto [place, inserted] = places_.try_emplace({sequence.request->id, sequence.index}, outputs_.size());
  if (!inserted) return outputs_[place->second];
  try {
    outputs_.emplace_back();
  } catch (...) {
    places_.erase(place);
    throw;
  }
  Output& out = outputs_.back();
  out.request_id = sequence.request->id;
  out.index = sequence.index;
  out.prompt_tokens = sequence.prompt_len();
  out.cached_tokens = sequence.cached_tokens;
  out.preemptions = sequence.preemptions;
  out.times = sequence.times;
  return out;
}

}  // namespace turbomind
