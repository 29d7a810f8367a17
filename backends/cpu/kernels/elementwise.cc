// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise.h"

#include "kernels/simd_math.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

static_assert(TM_F32 == 0 && TM_F16 == 1 && TM_BF16 == 2);

// out[i] = fn(i, load) for every element; load(p) reads the elements of the vector at hand.
template <class Out, class Fn>
TM_INLINE void map_row(int64_t length, Out* out, Fn&& fn) {
  int64_t i = 0;
  for (; i + kLanes <= length; i += kLanes) {
    store(out + i, fn([&](const auto* p) TM_INLINE_LAMBDA { return load(p + i); }));
  }
  if (i < length) {
    const int count = static_cast<int>(length - i);
    store(out + i, fn([&](const auto* p) TM_INLINE_LAMBDA { return load(p + i, count); }), count);
  }
}

void activation(tm_activation_kind kind, const float* x, int64_t length, float* out) {
  with_activation(kind, [&](auto tag) TM_INLINE_LAMBDA {
    map_row(length, out, [&](auto get) TM_INLINE_LAMBDA { return activate<decltype(tag)::value>(get(x)); });
  });
}

void gated_activation(tm_activation_kind kind, const float* gate, const float* up, int64_t length, float* out) {
  with_activation(kind, [&](auto tag) TM_INLINE_LAMBDA {
    map_row(length, out,
            [&](auto get) TM_INLINE_LAMBDA { return activate<decltype(tag)::value>(get(gate)) * get(up); });
  });
}

void softcap(const float* x, float cap, int64_t length, float* out) {
  map_row(length, out, [&](auto get) TM_INLINE_LAMBDA { return set(cap) * tanh(get(x) / set(cap)); });
}

void add(const float* a, const float* b, int64_t length, float* out) {
  map_row(length, out, [&](auto get) TM_INLINE_LAMBDA { return get(a) + get(b); });
}

void add_scaled(const float* x, float factor, int64_t length, float* out) {
  map_row(length, out, [&](auto get) TM_INLINE_LAMBDA { return fma(get(x), set(factor), get(out)); });
}

template <class In, class Out>
void convert_row(const void* in, int64_t length, void* out) {
  map_row(length, static_cast<Out*>(out), [&](auto get) TM_INLINE_LAMBDA { return get(static_cast<const In*>(in)); });
}

template <class In>
TM_INLINE void fill_conversions(void (*(&row)[3])(const void*, int64_t, void*)) {
  row[TM_F32] = convert_row<In, float>;
  row[TM_F16] = convert_row<In, F16>;
  row[TM_BF16] = convert_row<In, Bf16>;
}

}  // namespace

void fill(ElementwiseKernels& kernels) {
  kernels.activation = activation;
  kernels.gated_activation = gated_activation;
  kernels.softcap = softcap;
  kernels.add = add;
  kernels.add_scaled = add_scaled;
  fill_conversions<float>(kernels.convert[TM_F32]);
  fill_conversions<F16>(kernels.convert[TM_F16]);
  fill_conversions<Bf16>(kernels.convert[TM_BF16]);
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
