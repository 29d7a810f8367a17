// SPDX-License-Identifier: Apache-2.0
//
// Normalisation of one row; every sum has a fixed order, so a row's result depends on that row alone.
#pragma once

#include <cstdint>

namespace turbomind::cpu {

struct NormKernels {
  // x, out: [n], may alias. weight: [n].
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  // residual += x; out = rms_norm(residual). out may alias x.
  void (*add_rms_norm)(const float* x, float* residual, const float* weight, float eps, int64_t n, float* out);
  // bias: [n] or nullptr.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out);
};

}  // namespace turbomind::cpu
