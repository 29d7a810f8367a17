// SPDX-License-Identifier: Apache-2.0
//
// Passes over one row of logits, in a fixed order.
#pragma once

#include <cstdint>

namespace turbomind::cpu {

struct LogitsKernels {
  // Index of the largest value, ties to the lower index; NaN counts as smallest. n > 0.
  int64_t (*argmax)(const float* x, int64_t n);
  // out[i] = exp((x[i] - max) * scale); returns the sum. out may alias x.
  float (*exponentials)(const float* x, float max, float scale, int64_t n, float* out);
  // Sum of exp(x[i] - max), accumulated in double across vectors.
  double (*exponential_sum)(const float* x, float max, int64_t n);
  // Number of values greater than bound.
  int64_t (*count_above)(const float* x, float bound, int64_t n);
};

}  // namespace turbomind::cpu
