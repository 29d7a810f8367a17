// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "turbomind/engine/request.h"
#include "turbomind/engine/sequence.h"

namespace turbomind {

// An Output on its way from the engine thread to the caller. Nearly all of them are one token of a sequence that goes
// on, which fits here: several hundred per step then neither allocate memory that another thread frees, nor fill more
// of it than they need.
class StepOutput {
 public:
  explicit StepOutput(const Sequence& sequence);
  explicit StepOutput(Output output);

  bool is_of(const StepOutput& other) const { return request_id_ == other.request_id_ && index_ == other.index_; }
  uint64_t request_id() const { return request_id_; }
  int32_t index() const { return index_; }

  // A further token, and the sequence's times since.
  void add_token(int32_t token, const RequestTimes& times);
  // All of it, to be changed.
  Output& full();
  // Appends a later output of the same sequence; where memory fails, both stay as they were.
  void merge(StepOutput&& later);
  // As the caller sees it; throws for want of memory only, and can then be called again.
  Output take();

 private:
  uint64_t request_id_;
  int32_t index_;
  int32_t token_ = kNoToken;
  int64_t prompt_tokens_ = 0;
  int64_t cached_tokens_ = 0;
  int64_t preemptions_ = 0;
  RequestTimes times_;
  std::unique_ptr<Output> full_;  // if there is one, it holds everything

  static constexpr int32_t kNoToken = -1;
};

}  // namespace turbomind
