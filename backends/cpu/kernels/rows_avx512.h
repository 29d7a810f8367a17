// SPDX-License-Identifier: Apache-2.0
//
// rows.h for AVX-512 VNNI.
#pragma once

#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

inline constexpr bool kSignedBytes = false;

// Registers: sums and results take 2 * kPanelsPerTile * tokens of 32.
inline constexpr int kInt8MaxTokens = 6;
constexpr int int8_panels_per_tile(int tokens) { return tokens <= 3 ? 4 : 2; }
inline constexpr int kF32MaxTokens = 6;
inline constexpr int kFloatPanelsPerTile = 4;
inline constexpr int kExpandedPanelsPerTile = 2;
inline constexpr int kMinExpandedFloatTiles = 0;  // never

struct Codes {
  __m512i v;
};
struct Sums {
  __m512i v;
};
struct Quad {
  __m512i v;
};

TM_INLINE Codes load_codes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
TM_INLINE Codes mask(Codes a, int byte) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(static_cast<char>(byte)))}; }
TM_INLINE Codes merge(Codes low, Codes high, int byte) {
  constexpr int kOrAnd = 0xf8;  // a | (b & c)
  return {_mm512_ternarylogic_epi32(low.v, high.v, _mm512_set1_epi8(static_cast<char>(byte)), kOrAnd)};
}
template <int n>
TM_INLINE Codes shift_left(Codes a) {
  return {_mm512_slli_epi16(a.v, n)};
}
template <int n>
TM_INLINE Codes shift_right(Codes a) {
  return {_mm512_srli_epi16(a.v, n)};
}

TM_INLINE Quad load_quad(const int32_t* p) { return {_mm512_set1_epi32(*p)}; }
TM_INLINE Sums set_sums(int32_t x) { return {_mm512_set1_epi32(x)}; }
template <int n>
TM_INLINE Sums shift_sums_left(Sums a) {
  return {_mm512_slli_epi32(a.v, n)};
}
template <int kBits>
struct Dot {
  Sums sums;

  template <int kNth>
  TM_INLINE void add(Codes codes, Quad quad) {
    sums.v = _mm512_dpbusd_epi32(sums.v, codes.v, quad.v);
  }
};
template <int j>
TM_INLINE Sums byte_of_lane(Codes codes) {
  return {_mm512_and_si512(_mm512_srli_epi32(codes.v, 8 * j), _mm512_set1_epi32(0xff))};
}
TM_INLINE Sums bits_of_lane(Codes codes, int shift, int mask) {
  const __m512i shifted = _mm512_srl_epi32(codes.v, _mm_cvtsi32_si128(shift));
  return {_mm512_and_si512(shifted, _mm512_set1_epi32(mask))};
}
TM_INLINE Sums or_shifted(Sums low, Sums high, int n) {
  return {_mm512_or_si512(low.v, _mm512_sll_epi32(high.v, _mm_cvtsi32_si128(n)))};
}
TM_INLINE Vec to_vec(Sums sums, int) { return {_mm512_cvtepi32_ps(sums.v)}; }

TM_INLINE Vec first_bf16(Codes pairs, int) { return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs.v, 16))}; }
TM_INLINE Vec second_bf16(Codes pairs, int) {
  return {_mm512_castsi512_ps(_mm512_and_si512(pairs.v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}

struct Bytes {
  __m256i v;
};

TM_INLINE Bytes round_to_bytes(const Vec (&x)[2]) {
  const __m128i first = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x[0].v));
  const __m128i second = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x[1].v));
  return {_mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1)};
}
TM_INLINE void store_bytes(int32_t* p, Bytes bytes) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bytes.v); }
TM_INLINE HalfSums sum_halves(Bytes bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes.v);
  __m256i quads = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));  // each 128-bit lane is a half
  quads = _mm256_add_epi32(quads, _mm256_shuffle_epi32(quads, _MM_SHUFFLE(1, 0, 3, 2)));
  quads = _mm256_add_epi32(quads, _mm256_shuffle_epi32(quads, _MM_SHUFFLE(2, 3, 0, 1)));
  return {_mm_cvtsi128_si32(_mm256_castsi256_si128(quads)), _mm_cvtsi128_si32(_mm256_extracti128_si256(quads, 1))};
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
