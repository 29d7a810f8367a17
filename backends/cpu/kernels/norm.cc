// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm.h"

#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr int kChains = 4;  // independent sums, so that additions overlap

// Calls fn(i, count, chain) for every vector of the row; count < kLanes for a last, partial one.
template <class Fn>
TM_INLINE void for_each_vec(int64_t count, Fn&& fn) {
  int64_t i = 0;
  for (; i + kChains * kLanes <= count; i += kChains * kLanes) {
#pragma GCC unroll 4
    for (int chain = 0; chain < kChains; ++chain) fn(i + chain * kLanes, kLanes, chain);
  }
  for (int chain = 0; i < count; i += kLanes, ++chain)
    fn(i, count - i < kLanes ? static_cast<int>(count - i) : kLanes, chain);
}

TM_INLINE Vec load_part(const float* p, int count) { return count == kLanes ? load(p) : load(p, count); }
// Lanes past the row hold `rest`.
TM_INLINE Vec load_or(const float* p, int count, float rest) {
  if (count == kLanes) return load(p);
  float lanes[kLanes];
  store(lanes, set(rest));
  store(lanes, load(p, count), count);
  return load(lanes);
}
TM_INLINE void store_part(float* p, Vec v, int count) {
  if (count == kLanes) {
    store(p, v);
  } else {
    store(p, v, count);
  }
}

TM_INLINE float total(const Vec (&sums)[kChains]) { return sum((sums[0] + sums[1]) + (sums[2] + sums[3])); }

TM_INLINE float inverse_root(float mean_square, float eps) { return 1.0f / __builtin_sqrtf(mean_square + eps); }

TM_INLINE void scale_row(const float* x, const float* weight, float factor, int64_t length, float* out) {
  const Vec scale = set(factor);
  for_each_vec(length, [&](int64_t i, int count, int) TM_INLINE_LAMBDA {
    store_part(out + i, load_part(x + i, count) * scale * load_part(weight + i, count), count);
  });
}

void rms_norm(const float* x, const float* weight, float eps, int64_t length, float* out) {
  Vec sums[kChains] = {zero(), zero(), zero(), zero()};
  for_each_vec(length, [&](int64_t i, int count, int chain) TM_INLINE_LAMBDA {
    const Vec value = load_part(x + i, count);
    sums[chain] = fma(value, value, sums[chain]);
  });
  scale_row(x, weight, inverse_root(total(sums) / static_cast<float>(length), eps), length, out);
}

void add_rms_norm(const float* x, float* residual, const float* weight, float eps, int64_t length, float* out) {
  Vec sums[kChains] = {zero(), zero(), zero(), zero()};
  for_each_vec(length, [&](int64_t i, int count, int chain) TM_INLINE_LAMBDA {
    const Vec value = load_part(x + i, count) + load_part(residual + i, count);
    store_part(residual + i, value, count);
    sums[chain] = fma(value, value, sums[chain]);
  });
  scale_row(residual, weight, inverse_root(total(sums) / static_cast<float>(length), eps), length, out);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t length, float* out) {
  Vec sums[kChains] = {zero(), zero(), zero(), zero()};
  for_each_vec(length, [&](int64_t i, int count, int chain)
                           TM_INLINE_LAMBDA { sums[chain] = sums[chain] + load_part(x + i, count); });
  const float rough_mean = total(sums) / static_cast<float>(length);

  // Deviations from the rounded mean are exact or nearly so; their own mean is the rest of it.
  Vec squares[kChains] = {zero(), zero(), zero(), zero()};
  for (Vec& chain : sums) chain = zero();
  for_each_vec(length, [&](int64_t i, int count, int chain) TM_INLINE_LAMBDA {
    const Vec deviation = load_or(x + i, count, rough_mean) - set(rough_mean);
    sums[chain] = sums[chain] + deviation;
    squares[chain] = fma(deviation, deviation, squares[chain]);
  });
  const float rest = total(sums) / static_cast<float>(length);
  const float variance = total(squares) / static_cast<float>(length) - rest * rest;

  const Vec scale = set(inverse_root(variance, eps));
  for_each_vec(length, [&](int64_t i, int count, int) TM_INLINE_LAMBDA {
    const Vec deviation = (load_part(x + i, count) - set(rough_mean)) - set(rest);
    const Vec value = deviation * scale * load_part(weight + i, count);
    store_part(out + i, bias ? value + load_part(bias + i, count) : value, count);
  });
}

}  // namespace

void fill(NormKernels& kernels) {
  kernels.rms_norm = rms_norm;
  kernels.add_rms_norm = add_rms_norm;
  kernels.layer_norm = layer_norm;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
