// SPDX-License-Identifier: Apache-2.0
//
// Normalisation of one row. `out` may be `x`.
#pragma once

#include <cstdint>

namespace turbomind::cpu {

struct NormKernels {
  // out = x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t count, float* out);
  // residual += x, then the rms_norm of the sum
  void (*add_rms_norm)(const float* x, float* residual, const float* weight, float eps, int64_t count, float* out);
  // out = (x - mean) / sqrt(var + eps) * weight + bias; bias may be nullptr
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t count, float* out);
};

}  // namespace turbomind::cpu
