// SPDX-License-Identifier: Apache-2.0
//
// Linear in float32: weights of any format are expanded exactly, products are added in ascending order of k by fused
// multiply-adds. The order is the same for every tile, so a token's result does not depend on the others'.
#pragma once

#include "kernels/linear_task.h"

namespace turbomind::cpu {

struct LinearF32Kernels {
  int max_tile_tokens;
  LinearFn run[kNumPanelFormats];
};

}  // namespace turbomind::cpu
