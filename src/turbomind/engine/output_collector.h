// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "turbomind/engine/request.h"
#include "turbomind/engine/row_reader.h"
#include "turbomind/engine/sequence.h"

namespace turbomind {

// Why a sequence ends with a token it has just drawn; kNone if it goes on.
FinishReason finish_reason(const Sequence& sequence, int32_t token);
// True for a token that stops a sequence past its minimum length.
bool ends_sequence(const SamplingParams& params, int32_t token);

// The outputs of one step, at most one per sequence. What throws for want of memory can be called again.
class OutputCollector {
 public:
  // The token is the sequence's last known one; reason says whether it ended it.
  void add_token(Sequence& sequence, int32_t token, FinishReason reason, double now);
  void add_logprobs(const Sequence& sequence, PositionLogprobs logprobs);
  void add_rows(const Sequence& sequence, GroupRows rows);
  void add_finish(Sequence& sequence, FinishReason reason, double now);
  void add_error(Sequence& sequence, const Error& error, double now);
  // The step is over: what is added from now on goes to outputs of its own.
  void end_step() { places_.clear(); }
  // Of ended steps, in order, to be taken from the front.
  std::vector<Output>& outputs() { return outputs_; }

 private:
  Output& output(const Sequence& sequence);

  std::vector<Output> outputs_;
  std::map<std::pair<uint64_t, int32_t>, size_t> places_;  // (request, index) -> place in outputs_
};

}  // namespace turbomind
