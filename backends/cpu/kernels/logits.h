// SPDX-License-Identifier: Apache-2.0
//
// Passes over one row of logits, in a fixed order. NaN counts as smallest.
#pragma once

#include <cstdint>

namespace turbomind::cpu {

inline constexpr int64_t kMaximaBlock = 64;  // logits per block maximum: blocks without a candidate are skipped
inline constexpr int64_t kSumBlock = 256;    // exponentials added in float32; the blocks' sums are added in double

struct LogitsKernels {
  // maxima: [ceil(n / kMaximaBlock)]. Returns the largest; -infinity if all are NaN.
  float (*block_maxima)(const float* x, int64_t n, float* maxima);
  // out[i] = exp((x[i] - max) * scale). out may be x.
  void (*exponentials)(const float* x, float max, float scale, int64_t n, float* out);
  // Sum of exp((x[i] - max) * scale); each block's own to block_sums [ceil(n / kSumBlock)] unless nullptr.
  double (*exponential_sum)(const float* x, float max, float scale, int64_t n, float* block_sums);
  // Number of values greater than bound.
  int64_t (*count_above)(const float* x, float bound, int64_t n);
  // x[i] = -infinity where bit i % 32 of allowed[i / 32] is 0.
  void (*forbid)(float* x, const uint32_t* allowed, int64_t n);
};

}  // namespace turbomind::cpu
