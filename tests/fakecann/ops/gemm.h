// SPDX-License-Identifier: Apache-2.0
#ifndef FAKECANN_OPS_GEMM_H_
#define FAKECANN_OPS_GEMM_H_

#include <cstdint>
#include <functional>

namespace fakecann {

// out[m, n] = sum over k of x[m, k] * w[n, k], float32, x and out dense; fill(first, count, rows) writes `count` rows
// of w. The same numbers on every machine: eight partial sums per element, in a fixed order, no contraction.
void gemm(const float* x, int64_t m, int64_t n, int64_t k, const std::function<void(int64_t, int64_t, float*)>& fill,
          float* out);
// Four dot products of length k.
void dot4(const float* x, const float* w0, const float* w1, const float* w2, const float* w3, int64_t k, float* out);
float dot(const float* x, const float* w, int64_t k);
// sum += factor * row.
void accumulate(float factor, const float* row, int64_t k, float* sum);

}  // namespace fakecann

#endif  // FAKECANN_OPS_GEMM_H_
