// SPDX-License-Identifier: Apache-2.0
//
// Linear on float32, float16 and bfloat16 weights: products are added in float32 in ascending order of k by fused
// multiply-adds. The order is the same for every tile, so a token's result does not depend on the others'.
#pragma once

#include "kernels/linear_task.h"

namespace turbomind::cpu {

struct LinearFloatKernels {
  LinearFn run[kNumPanelFormats];  // nullptr for quantised formats
};

}  // namespace turbomind::cpu
