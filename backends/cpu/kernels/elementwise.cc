// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise.h"

#include "kernels/simd_math.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

// fn(i, count) for each vector of the row; count < kLanes only in the last.
template <class Fn>
TM_INLINE void for_lanes(int64_t n, Fn fn) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) fn(i, kLanes);
  if (i < n) fn(i, static_cast<int>(n - i));
}

template <class T>
TM_INLINE Vec load_some(const T* p, int count) {
  return count == kLanes ? load(p) : load(p, count);
}
template <class T>
TM_INLINE void store_some(T* p, Vec v, int count) {
  count == kLanes ? store(p, v) : store(p, v, count);
}

void activation(tm_activation_kind kind, const float* x, int64_t n, float* out) {
  with_activation(kind, [&](auto tag) TM_INLINE_LAMBDA {
    for_lanes(n, [&](int64_t i, int count) TM_INLINE_LAMBDA {
      store_some(out + i, activate<decltype(tag)::value>(load_some(x + i, count)), count);
    });
  });
}

void gated_activation(tm_activation_kind kind, const float* gate, const float* up, int64_t n, float* out) {
  with_activation(kind, [&](auto tag) TM_INLINE_LAMBDA {
    for_lanes(n, [&](int64_t i, int count) TM_INLINE_LAMBDA {
      const Vec gated = activate<decltype(tag)::value>(load_some(gate + i, count));
      store_some(out + i, gated * load_some(up + i, count), count);
    });
  });
}

void add(const float* a, const float* b, int64_t n, float* out) {
  for_lanes(n, [&](int64_t i, int count)
                   TM_INLINE_LAMBDA { store_some(out + i, load_some(a + i, count) + load_some(b + i, count), count); });
}

template <class In, class Out>
TM_INLINE void convert_row(const In* in, int64_t n, Out* out) {
  for_lanes(n, [&](int64_t i, int count) TM_INLINE_LAMBDA { store_some(out + i, load_some(in + i, count), count); });
}

template <class In>
TM_INLINE void convert_from(const In* in, int64_t n, void* out, tm_dtype to) {
  switch (to) {
    case TM_F16:
      return convert_row(in, n, static_cast<F16*>(out));
    case TM_BF16:
      return convert_row(in, n, static_cast<Bf16*>(out));
    case TM_I8:
      return convert_row(in, n, static_cast<int8_t*>(out));
    default:
      return convert_row(in, n, static_cast<float*>(out));
  }
}

void convert(const void* in, tm_dtype from, int64_t n, void* out, tm_dtype to) {
  switch (from) {
    case TM_F16:
      return convert_from(static_cast<const F16*>(in), n, out, to);
    case TM_BF16:
      return convert_from(static_cast<const Bf16*>(in), n, out, to);
    case TM_I8:
      return convert_from(static_cast<const int8_t*>(in), n, out, to);
    default:
      return convert_from(static_cast<const float*>(in), n, out, to);
  }
}

void rotate_neox(float* x, const float* cos, const float* sin, int64_t pairs) {
  float* y = x + pairs;
  for_lanes(pairs, [&](int64_t i, int count) TM_INLINE_LAMBDA {
    const Vec a = load_some(x + i, count);
    const Vec b = load_some(y + i, count);
    const Vec c = load_some(cos + i, count);
    const Vec s = load_some(sin + i, count);
    store_some(x + i, a * c - b * s, count);
    store_some(y + i, b * c + a * s, count);
  });
}

void rotate_interleaved(float* x, const float* cos, const float* sin, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i];
    const float b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

}  // namespace

void fill(ElementwiseKernels& kernels) {
  kernels.activation = activation;
  kernels.gated_activation = gated_activation;
  kernels.add = add;
  kernels.convert = convert;
  kernels.rotate_neox = rotate_neox;
  kernels.rotate_interleaved = rotate_interleaved;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
