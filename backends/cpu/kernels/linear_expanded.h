// SPDX-License-Identifier: Apache-2.0
//
// Linear without rounding below float32: the weights are expanded exactly, a part at a time, and multiplied as in
// linear_float.h, in the same order. For quantised weights, and for float ones where many tokens meet a part.
#pragma once

#include "kernels/linear_task.h"

namespace turbomind::cpu {

struct LinearExpandedKernels {
  int max_tile_tokens;             // of linear_float too
  int min_float_tiles;             // from here on float formats are expanded; 0: never
  LinearFn run[kNumPanelFormats];  // use LinearTask::scratch
};

}  // namespace turbomind::cpu
