// SPDX-License-Identifier: Apache-2.0
//
// simd.h in plain C++; the compiler vectorises the fixed-length loops as the baseline allows.
#pragma once

#include <cmath>

namespace turbomind::cpu::TM_ISA_NAMESPACE {

inline constexpr int kLanes = 8;

struct Vec {
  float v[kLanes];
};

struct Mask {
  bool v[kLanes];
};

template <class Fn>
TM_INLINE Vec make(Fn&& lane) {
  Vec out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = lane(i);
  return out;
}

TM_INLINE Vec set(float x) {
  return make([&](int) { return x; });
}
TM_INLINE Vec zero() { return set(0.0f); }

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

template <class T>
TM_INLINE Vec load(const T* p) {
  return make([&](int i) { return to_float(p[i]); });
}
template <class T>
TM_INLINE Vec load(const T* p, int count) {
  return make([&](int i) { return i < count ? to_float(p[i]) : 0.0f; });
}
template <class T>
TM_INLINE void store(T* p, Vec a) {
  for (int i = 0; i < kLanes; ++i) convert(a.v[i], p + i);
}
template <class T>
TM_INLINE void store(T* p, Vec a, int count) {
  for (int i = 0; i < count; ++i) convert(a.v[i], p + i);
}

TM_INLINE Vec operator+(Vec a, Vec b) {
  return make([&](int i) { return a.v[i] + b.v[i]; });
}
TM_INLINE Vec operator-(Vec a, Vec b) {
  return make([&](int i) { return a.v[i] - b.v[i]; });
}
TM_INLINE Vec operator*(Vec a, Vec b) {
  return make([&](int i) { return a.v[i] * b.v[i]; });
}
TM_INLINE Vec operator/(Vec a, Vec b) {
  return make([&](int i) { return a.v[i] / b.v[i]; });
}
TM_INLINE Vec operator-(Vec a) {
  return make([&](int i) { return -a.v[i]; });
}
TM_INLINE Vec fma(Vec a, Vec b, Vec c) {
#ifdef __FP_FAST_FMAF
  return make([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
#else
  return make([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
#endif
}
TM_INLINE Vec min(Vec a, Vec b) {
  return make([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
TM_INLINE Vec max(Vec a, Vec b) {
  return make([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
TM_INLINE Vec abs(Vec a) {
  return make([&](int i) { return __builtin_fabsf(a.v[i]); });
}
TM_INLINE Vec sqrt(Vec a) {
  return make([&](int i) { return __builtin_sqrtf(a.v[i]); });
}
TM_INLINE Vec round(Vec a) {
  return make([&](int i) { return std::nearbyint(a.v[i]); });
}
TM_INLINE Mask less(Vec a, Vec b) {
  Mask out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = a.v[i] < b.v[i];
  return out;
}
TM_INLINE Mask equal(Vec a, Vec b) {
  Mask out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = a.v[i] == b.v[i];
  return out;
}
TM_INLINE Vec select(Mask mask, Vec if_true, Vec if_false) {
  return make([&](int i) { return mask.v[i] ? if_true.v[i] : if_false.v[i]; });
}

// Two factors, so that n down to the subnormals and up to overflow is in range of each.
TM_INLINE Vec scale_by_power(Vec x, Vec n) {
  const auto power = [](int exponent) { return std::bit_cast<float>((exponent + 127) << 23); };
  return make([&](int i) {
    const int exponent = static_cast<int>(n.v[i]);
    const int half = exponent >> 1;
    return x.v[i] * power(half) * power(exponent - half);
  });
}

TM_INLINE float sum(Vec a) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] + a.v[i + width];
  }
  return a.v[0];
}
TM_INLINE bool all(Mask mask) {
  bool result = true;
  for (const bool lane : mask.v) result &= lane;
  return result;
}
TM_INLINE float max_lane(Vec a) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
  }
  return a.v[0];
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
