// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm.h"

#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr float kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
static_assert(kLanes <= 16);

// Sum of fn(lanes of element i..) over the row, in four partial sums so that additions overlap.
template <class Fn>
TM_INLINE float row_sum(int64_t n, Fn fn) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int part = 0; part < 4; ++part) sums[part] = fn(i + part * kLanes, kLanes, sums[part]);
  }
  for (; i < n; i += kLanes) {
    const int count = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    sums[0] = fn(i, count, sums[0]);
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

TM_INLINE Vec load_some(const float* p, int count) { return count == kLanes ? load(p) : load(p, count); }
TM_INLINE void store_some(float* p, Vec v, int count) { count == kLanes ? store(p, v) : store(p, v, count); }

template <class Fn>
TM_INLINE void for_lanes(int64_t n, Fn fn) {
  for (int64_t i = 0; i < n; i += kLanes) fn(i, n - i < kLanes ? static_cast<int>(n - i) : kLanes);
}

TM_INLINE float inverse_root(float mean_square, float eps) { return 1.0f / __builtin_sqrtf(mean_square + eps); }

TM_INLINE float square_sum(const float* x, int64_t n) {
  return row_sum(n, [&](int64_t i, int count, Vec acc) TM_INLINE_LAMBDA {
    const Vec v = load_some(x + i, count);
    return fma(v, v, acc);
  });
}

TM_INLINE void scale_row(const float* x, const float* weight, float factor, int64_t n, float* out) {
  const Vec scale = set(factor);
  for_lanes(n, [&](int64_t i, int count) TM_INLINE_LAMBDA {
    store_some(out + i, load_some(x + i, count) * scale * load_some(weight + i, count), count);
  });
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  scale_row(x, weight, inverse_root(square_sum(x, n) / static_cast<float>(n), eps), n, out);
}

void add_rms_norm(const float* x, float* residual, const float* weight, float eps, int64_t n, float* out) {
  for_lanes(n, [&](int64_t i, int count) TM_INLINE_LAMBDA {
    store_some(residual + i, load_some(x + i, count) + load_some(residual + i, count), count);
  });
  rms_norm(residual, weight, eps, n, out);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out) {
  const float count_inverse = 1.0f / static_cast<float>(n);
  const float mean = count_inverse * row_sum(n, [&](int64_t i, int count, Vec acc)
                                                    TM_INLINE_LAMBDA { return acc + load_some(x + i, count); });
  const float variance = count_inverse * row_sum(n, [&](int64_t i, int count, Vec acc) TM_INLINE_LAMBDA {
                           const Vec inside = load_some(kOnes, count);  // 0 in lanes past the row
                           const Vec centred = (load_some(x + i, count) - set(mean)) * inside;
                           return fma(centred, centred, acc);
                         });
  const Vec scale = set(inverse_root(variance, eps));
  for_lanes(n, [&](int64_t i, int count) TM_INLINE_LAMBDA {
    Vec v = (load_some(x + i, count) - set(mean)) * scale * load_some(weight + i, count);
    if (bias) v = v + load_some(bias + i, count);
    store_some(out + i, v, count);
  });
}

}  // namespace

void fill(NormKernels& kernels) {
  kernels.rms_norm = rms_norm;
  kernels.add_rms_norm = add_rms_norm;
  kernels.layer_norm = layer_norm;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
