// SPDX-License-Identifier: Apache-2.0
//
// rows.h on the compiler's generic vectors of 128 bits: a panel's 16 rows are four of them.
#pragma once

#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

inline constexpr bool kSignedBytes = false;

// Registers: sums and results take 8 * tokens of 16 (32 on AArch64).
inline constexpr int kInt8MaxTokens = 2;
constexpr int int8_panels_per_tile(int) { return 1; }
inline constexpr int kF32MaxTokens = 3;
inline constexpr int kFloatPanelsPerTile = 1;
inline constexpr int kExpandedPanelsPerTile = 1;
inline constexpr int kMinExpandedFloatTiles = 0;  // never

inline constexpr int kParts = kPanelRows / kLanes;

using WordLanes [[gnu::vector_size(16)]] = uint32_t;
using ShortLanes [[gnu::vector_size(16)]] = int16_t;

struct Codes {
  WordLanes v[kParts];
};
struct Sums {
  IntLanes v[kParts];
};
struct Quad {
  ShortLanes even;  // activations 0 and 2 in each 32-bit lane
  ShortLanes odd;   // activations 1 and 3
};

template <class Fn>
TM_INLINE Codes make_codes(Fn&& part) {
  return {{part(0), part(1), part(2), part(3)}};
}
template <class Fn>
TM_INLINE Sums make_sums(Fn&& part) {
  return {{part(0), part(1), part(2), part(3)}};
}

TM_INLINE Codes load_codes(const uint8_t* p) {
  Codes out;
  __builtin_memcpy(&out, p, sizeof out);
  return out;
}
TM_INLINE Codes mask(const Codes& a, int byte) {
  const uint32_t bits = 0x01010101u * static_cast<uint32_t>(byte);
  return make_codes([&](int i) { return a.v[i] & bits; });
}
TM_INLINE Codes merge(const Codes& low, const Codes& high, int byte) {
  const uint32_t bits = 0x01010101u * static_cast<uint32_t>(byte);
  return make_codes([&](int i) { return low.v[i] | (high.v[i] & bits); });
}
template <int n>
TM_INLINE Codes shift_left(const Codes& a) {
  return make_codes([&](int i) { return a.v[i] << n; });
}
template <int n>
TM_INLINE Codes shift_right(const Codes& a) {
  return make_codes([&](int i) { return a.v[i] >> n; });
}

TM_INLINE Quad load_quad(const int32_t* p) {
  const auto at = [word = *p](int j) { return static_cast<int16_t>(static_cast<int8_t>(word >> (8 * j))); };
  const int16_t a = at(0), b = at(1), c = at(2), d = at(3);
  return {ShortLanes{a, c, a, c, a, c, a, c}, ShortLanes{b, d, b, d, b, d, b, d}};
}
TM_INLINE Sums set_sums(int32_t x) {
  const IntLanes lanes = {x, x, x, x};
  return {{lanes, lanes, lanes, lanes}};
}
template <int n>
TM_INLINE Sums shift_sums_left(const Sums& a) {
  return make_sums([&](int i) { return a.v[i] * (1 << n); });
}

// The two 16-bit halves of each lane, added as 32-bit integers. A product of a code and an activation fits in 16 bits.
TM_INLINE IntLanes add_halves(ShortLanes pairs) {
  IntLanes lanes;
  __builtin_memcpy(&lanes, &pairs, sizeof lanes);
  return (lanes >> 16) + ((lanes << 16) >> 16);
}
template <int kBits>
struct Dot {
  Sums sums;

  template <int kNth>
  TM_INLINE void add(const Codes& codes, const Quad& quad) {
    sums = make_sums([&](int i) {
      const WordLanes even_bytes = codes.v[i] & 0x00ff00ffu;
      const WordLanes odd_bytes = (codes.v[i] >> 8) & 0x00ff00ffu;
      ShortLanes even, odd;
      __builtin_memcpy(&even, &even_bytes, sizeof even);
      __builtin_memcpy(&odd, &odd_bytes, sizeof odd);
      return sums.v[i] + add_halves(even * quad.even) + add_halves(odd * quad.odd);
    });
  }
};
template <int j>
TM_INLINE Sums byte_of_lane(const Codes& codes) {
  return make_sums([&](int i) { return __builtin_convertvector((codes.v[i] >> (8 * j)) & 0xffu, IntLanes); });
}
TM_INLINE Sums bits_of_lane(const Codes& codes, int shift, int mask) {
  return make_sums(
      [&](int i) { return __builtin_convertvector((codes.v[i] >> shift) & static_cast<uint32_t>(mask), IntLanes); });
}
TM_INLINE Sums or_shifted(const Sums& low, const Sums& high, int n) {
  return make_sums([&](int i) { return low.v[i] | (high.v[i] << n); });
}
TM_INLINE Vec to_vec(const Sums& sums, int part) { return {__builtin_convertvector(sums.v[part], FloatLanes)}; }

TM_INLINE Vec first_bf16(const Codes& pairs, int part) {
  const WordLanes bits = pairs.v[part] << 16;
  Vec out;
  __builtin_memcpy(&out.v, &bits, sizeof bits);
  return out;
}
TM_INLINE Vec second_bf16(const Codes& pairs, int part) {
  const WordLanes bits = pairs.v[part] & 0xffff0000u;
  Vec out;
  __builtin_memcpy(&out.v, &bits, sizeof bits);
  return out;
}

struct Bytes {
  int8_t v[32];
};

TM_INLINE Bytes round_to_bytes(const Vec (&x)[8]) {
  Bytes out;
  for (int i = 0; i < 8; ++i) store(out.v + i * kLanes, x[i]);
  return out;
}
TM_INLINE void store_bytes(int32_t* p, const Bytes& bytes) { __builtin_memcpy(p, bytes.v, sizeof bytes.v); }
TM_INLINE HalfSums sum_halves(const Bytes& bytes) {
  HalfSums sums{};
  for (int i = 0; i < 16; ++i) {
    sums.first += bytes.v[i];
    sums.second += bytes.v[i + 16];
  }
  return sums;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
