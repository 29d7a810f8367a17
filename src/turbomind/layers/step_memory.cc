// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/step_memory.h"

namespace turbomind {

void StepMemory::reserve(const Walk& largest_call) {
  Ops measured_ops(device_, stream_, workspace_, Ops::Mode::kMeasure);
  Arena measured;
  const size_t input_bytes = largest_call(measured_ops, measured);
  arena_.emplace(device_, measured.peak());
  arena_bytes_ = measured.peak();
  workspace_.require(measured_ops.peak_workspace_bytes());
  inputs_.begin(input_bytes);
}

}  // namespace turbomind
