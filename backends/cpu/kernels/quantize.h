// SPDX-License-Identifier: Apache-2.0
//
// Brings the rows of one token tile into the form the linear kernels read.
#pragma once

#include <cstdint>

namespace turbomind::cpu {

struct QuantizeKernels {
  // int8 codes in groups of 32 with scale = max|x| / 127, and the elements left out of them, in the layouts of
  // kernels/panels.h. A group with a NaN or an infinity gets a NaN scale, so that it reaches the output.
  void (*quantize_tile)(const float* x, int64_t stride, int tokens, int64_t cols, int32_t* words, int32_t* outliers);

  // [cols][tokens] float32.
  void (*transpose_tile)(const float* x, int64_t stride, int tokens, int64_t cols, float* out);
};

}  // namespace turbomind::cpu
