// SPDX-License-Identifier: Apache-2.0
//
// Linear on quantised weights and activations quantised to int8 (quantize.h): integer dot products within a group,
// groups added in float32 in ascending order of k. The order is the same for every tile, so a token's result does not
// depend on the others'.
#pragma once

#include "kernels/linear_task.h"

namespace turbomind::cpu {

struct LinearInt8Kernels {
  int max_tile_tokens;
  LinearFn run[kNumPanelFormats];  // nullptr for float formats
};

}  // namespace turbomind::cpu
