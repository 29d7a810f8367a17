// SPDX-License-Identifier: Apache-2.0
//
// Linear on quantised weights without rounding below float32: the weights are expanded exactly, then multiplied as in
// linear_float.h, in the same order.
#pragma once

#include "kernels/linear_task.h"

namespace turbomind::cpu {

struct LinearExpandedKernels {
  int max_tile_tokens;             // of linear_float too
  LinearFn run[kNumPanelFormats];  // nullptr for float formats; use LinearTask::scratch
};

}  // namespace turbomind::cpu
