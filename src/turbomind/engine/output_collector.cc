// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/output_collector.h"

#include <algorithm>
#include <utility>

namespace turbomind {

bool ends_sequence(const Sequence& sequence, int32_t token) {
  return std::find(sequence.stop_tokens.begin(), sequence.stop_tokens.end(), token) != sequence.stop_tokens.end();
}

FinishReason finish_reason(const Sequence& sequence, int32_t token) {
  const auto length = static_cast<int64_t>(sequence.tokens.size());
  // The minimum counts tokens before a stop, so the one that stops is not among them.
  const bool may_stop = length - sequence.prompt_len() > sequence.facts.min_new_tokens;
  if (may_stop && ends_sequence(sequence, token)) return FinishReason::kStop;
  return length >= sequence.facts.max_len ? FinishReason::kLength : FinishReason::kNone;
}

void OutputCollector::add_token(Sequence& sequence, int32_t token, FinishReason reason, double now) {
  if (sequence.times.first_token == 0.0) sequence.times.first_token = now;
  StepOutput& out = output(sequence);
  if (reason == FinishReason::kStop) {
    out.full().stop_token_id = token;
  } else {
    out.add_token(token, sequence.times);
  }
  if (reason != FinishReason::kNone) add_finish(sequence, reason, now);
}

void OutputCollector::add_logprobs(Sequence& sequence, PositionLogprobs logprobs) {
  output(sequence).full().logprobs.push_back(std::move(logprobs));
}

void OutputCollector::add_rows(Sequence& sequence, GroupRows rows) {
  Output& out = output(sequence).full();
  out.logits.append(rows.logits);
  out.last_hidden_state.append(rows.hidden);
  for (PositionLogprobs& position : rows.prompt_logprobs) out.prompt_logprobs.push_back(std::move(position));
}

void OutputCollector::add_finish(Sequence& sequence, FinishReason reason, double now) {
  sequence.times.finish = now;
  Output& out = output(sequence).full();
  out.finished = true;
  out.finish_reason = reason;
  out.times = sequence.times;
}

void OutputCollector::add_error(Sequence& sequence, const Error& error, double now) {
  Output& out = output(sequence).full();
  out.error_message = error.what();
  out.error_code = error.code();
  add_finish(sequence, FinishReason::kError, now);
}

StepOutput& OutputCollector::output(Sequence& sequence) {
  if (sequence.output_round == round_) return outputs_[sequence.output_place];
  outputs_.emplace_back(sequence);
  sequence.output_round = round_;
  sequence.output_place = outputs_.size() - 1;
  return outputs_.back();
}

}  // namespace turbomind
