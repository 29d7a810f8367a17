// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "turbomind/engine/request.h"
#include "turbomind/engine/row_reader.h"
#include "turbomind/engine/sequence.h"
#include "turbomind/engine/step_output.h"

namespace turbomind {

// Why a sequence ends with a token it has just drawn; kNone if it goes on.
FinishReason finish_reason(const Sequence& sequence, int32_t token);
// True for a token that stops it past its minimum length.
bool ends_sequence(const Sequence& sequence, int32_t token);

// The outputs of one step, at most one per sequence. What throws for want of memory can be called again.
class OutputCollector {
 public:
  // The token is the sequence's last known one; reason says whether it ended it.
  void add_token(Sequence& sequence, int32_t token, FinishReason reason, double now);
  void add_logprobs(Sequence& sequence, PositionLogprobs logprobs);
  void add_rows(Sequence& sequence, GroupRows rows);
  void add_finish(Sequence& sequence, FinishReason reason, double now);
  void add_error(Sequence& sequence, const Error& error, double now);
  // The step is over: what is added from now on goes to outputs of its own.
  void end_step() { ++round_; }
  // Of ended steps, in order, to be taken from the front.
  std::vector<StepOutput>& outputs() { return outputs_; }

 private:
  StepOutput& output(Sequence& sequence);

  std::vector<StepOutput> outputs_;
  uint64_t round_ = 1;  // a sequence's output_place is of this one, or not valid any more
};

}  // namespace turbomind
