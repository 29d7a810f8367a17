// SPDX-License-Identifier: Apache-2.0
//
// simd.h on the compiler's generic vectors of 128 bits (GCC and Clang), which every target has or emulates.
#pragma once

#include <cmath>

namespace turbomind::cpu::TM_ISA_NAMESPACE {

inline constexpr int kLanes = 4;

using FloatLanes [[gnu::vector_size(16)]] = float;
using IntLanes [[gnu::vector_size(16)]] = int32_t;

struct Vec {
  FloatLanes v;
};

struct Mask {
  IntLanes v;  // -1 or 0 per lane
};

TM_INLINE Vec set(float x) { return {FloatLanes{x, x, x, x}}; }
TM_INLINE Vec zero() { return {FloatLanes{}}; }

TM_INLINE float to_float(float x) { return x; }
TM_INLINE float to_float(int8_t x) { return static_cast<float>(x); }
TM_INLINE float to_float(uint8_t x) { return static_cast<float>(x); }
using cpu::to_float;

TM_INLINE void convert(float x, float* out) { *out = x; }
TM_INLINE void convert(float x, Bf16* out) { *out = to_bf16(x); }
TM_INLINE void convert(float x, F16* out) { *out = to_f16(x); }
TM_INLINE void convert(float x, int8_t* out) {
  const float bounded = x < -128.0f ? -128.0f : (x > 127.0f ? 127.0f : x);
  *out = static_cast<int8_t>(static_cast<int>(std::nearbyint(bounded)));
}

TM_INLINE Vec load(const float* p) {
  Vec out;
  __builtin_memcpy(&out.v, p, sizeof out.v);
  return out;
}
template <class T>
TM_INLINE Vec load(const T* p) {
  return {FloatLanes{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])}};
}
template <class T>
TM_INLINE Vec load(const T* p, int count) {
  float lanes[kLanes] = {};
  for (int i = 0; i < kLanes && i < count; ++i) lanes[i] = to_float(p[i]);
  return load(lanes);
}
TM_INLINE void store(float* p, Vec a) { __builtin_memcpy(p, &a.v, sizeof a.v); }
template <class T>
TM_INLINE void store(T* p, Vec a) {
  for (int i = 0; i < kLanes; ++i) convert(a.v[i], p + i);
}
template <class T>
TM_INLINE void store(T* p, Vec a, int count) {
  for (int i = 0; i < kLanes && i < count; ++i) convert(a.v[i], p + i);
}

TM_INLINE Vec select(Mask mask, Vec if_true, Vec if_false) { return {mask.v ? if_true.v : if_false.v}; }

TM_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
TM_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
TM_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
TM_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
TM_INLINE Vec operator-(Vec a) { return {-a.v}; }
TM_INLINE Vec fma(Vec a, Vec b, Vec c) {
#ifdef __FP_FAST_FMAF
  FloatLanes out;
  for (int i = 0; i < kLanes; ++i) out[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return {out};
#else
  return {a.v * b.v + c.v};
#endif
}
TM_INLINE Mask less(Vec a, Vec b) { return {a.v < b.v}; }
TM_INLINE Mask equal(Vec a, Vec b) { return {a.v == b.v}; }
TM_INLINE uint32_t mask_bits(Mask mask) {
  return static_cast<uint32_t>((mask.v[0] & 1) | (mask.v[1] & 2) | (mask.v[2] & 4) | (mask.v[3] & 8));
}
TM_INLINE Mask lanes_of(uint32_t bits) {
  const IntLanes bit = {1, 2, 4, 8};
  return {(static_cast<int32_t>(bits) & bit) == bit};
}
TM_INLINE bool all(Mask mask) { return (mask.v[0] & mask.v[1] & mask.v[2] & mask.v[3]) != 0; }
TM_INLINE Vec min(Vec a, Vec b) { return select(less(a, b), a, b); }
TM_INLINE Vec max(Vec a, Vec b) { return select(less(b, a), a, b); }
TM_INLINE Vec abs(Vec a) {
  IntLanes bits;
  __builtin_memcpy(&bits, &a.v, sizeof bits);
  bits &= 0x7fffffff;
  __builtin_memcpy(&a.v, &bits, sizeof bits);
  return a;
}
TM_INLINE Vec sqrt(Vec a) {
  for (int i = 0; i < kLanes; ++i) a.v[i] = __builtin_sqrtf(a.v[i]);
  return a;
}
TM_INLINE Vec round(Vec a) {
  for (int i = 0; i < kLanes; ++i) a.v[i] = std::nearbyint(a.v[i]);
  return a;
}

// Two factors, so that n down to the subnormals and up to overflow is in range of each.
TM_INLINE Vec scale_by_power(Vec x, Vec n) {
  const auto power = [](IntLanes exponent) {
    const IntLanes bits = (exponent + 127) << 23;
    FloatLanes out;
    __builtin_memcpy(&out, &bits, sizeof out);
    return out;
  };
  const IntLanes exponent = __builtin_convertvector(n.v, IntLanes);
  const IntLanes half = exponent >> 1;
  return {x.v * power(half) * power(exponent - half)};
}

TM_INLINE float sum(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
TM_INLINE float max_lane(Vec a) {
  const float even = a.v[0] > a.v[2] ? a.v[0] : a.v[2];
  const float odd = a.v[1] > a.v[3] ? a.v[1] : a.v[3];
  return even > odd ? even : odd;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
