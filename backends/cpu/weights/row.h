// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/panels.h"

namespace turbomind::cpu {

// out[k] = the weight's exact value at (row, k) in float32, times scale, for all of the row's columns.
void read_row(const Panels& panels, int64_t row, float scale, float* out);

}  // namespace turbomind::cpu
