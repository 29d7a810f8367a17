// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/step_output.h"

#include <utility>

namespace turbomind {

StepOutput::StepOutput(const Sequence& sequence)
    : request_id_(sequence.facts.request_id),
      index_(sequence.index),
      prompt_tokens_(sequence.prompt_len()),
      cached_tokens_(sequence.cached_tokens),
      preemptions_(sequence.preemptions),
      times_(sequence.times) {}

StepOutput::StepOutput(Output output)
    : request_id_(output.request_id), index_(output.index), full_(std::make_unique<Output>(std::move(output))) {}

void StepOutput::add_token(int32_t token, const RequestTimes& times) {
  if (!full_ && token_ == kNoToken) {
    token_ = token;
    times_ = times;
    return;
  }
  full().token_ids.push_back(token);
  full().times = times;
}

Output& StepOutput::full() {
  if (!full_) full_ = std::make_unique<Output>(take());
  return *full_;
}

void StepOutput::merge(StepOutput&& later) {
  Output& out = full();
  if (later.full_) return out.merge(std::move(*later.full_));
  if (later.token_ != kNoToken) out.token_ids.push_back(later.token_);
  out.cached_tokens = later.cached_tokens_;
  out.preemptions = later.preemptions_;
  out.times = later.times_;
}

Output StepOutput::take() {
  if (full_) return std::move(*full_);
  Output output;
  output.request_id = request_id_;
  output.index = index_;
  if (token_ != kNoToken) output.token_ids.push_back(token_);
  output.prompt_tokens = prompt_tokens_;
  output.cached_tokens = cached_tokens_;
  output.preemptions = preemptions_;
  output.times = times_;
  return output;
}

}  // namespace turbomind
