// SPDX-License-Identifier: Apache-2.0
//
// rows.h for AVX2.
#pragma once

#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

// vpmaddubsw saturates its 16-bit sums: unsigned bytes above 127 would overflow, magnitudes up to 128 do not.
inline constexpr bool kSignedBytes = true;

// Registers: sums and results take 4 * tokens of 16 (a panel is two vectors).
inline constexpr int kInt8MaxTokens = 4;
constexpr int int8_panels_per_tile(int) { return 1; }
inline constexpr int kF32MaxTokens = 6;
inline constexpr int kFloatPanelsPerTile = 1;
inline constexpr int kExpandedPanelsPerTile = 1;
// Widening bfloat16 beside 12 sums takes a register too many, and a panel with a tile more than L1 holds.
inline constexpr int kMinExpandedFloatTiles = 3;

struct Codes {
  __m256i v[2];  // rows 0..7, rows 8..15
};
struct Sums {
  __m256i v[2];
};
struct Quad {
  __m256i v;
};

TM_INLINE Codes load_codes(const uint8_t* p) {
  return {{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))}};
}
TM_INLINE Codes mask(Codes a, int byte) {
  const __m256i bits = _mm256_set1_epi8(static_cast<char>(byte));
  return {{_mm256_and_si256(a.v[0], bits), _mm256_and_si256(a.v[1], bits)}};
}
TM_INLINE Codes merge(Codes low, Codes high, int byte) {
  const Codes kept = mask(high, byte);
  return {{_mm256_or_si256(low.v[0], kept.v[0]), _mm256_or_si256(low.v[1], kept.v[1])}};
}
template <int n>
TM_INLINE Codes shift_left(Codes a) {
  return {{_mm256_slli_epi16(a.v[0], n), _mm256_slli_epi16(a.v[1], n)}};
}
template <int n>
TM_INLINE Codes shift_right(Codes a) {
  return {{_mm256_srli_epi16(a.v[0], n), _mm256_srli_epi16(a.v[1], n)}};
}

TM_INLINE Quad load_quad(const int32_t* p) { return {_mm256_set1_epi32(*p)}; }
TM_INLINE Sums set_sums(int32_t x) { return {{_mm256_set1_epi32(x), _mm256_set1_epi32(x)}}; }
template <int n>
TM_INLINE Sums shift_sums_left(Sums a) {
  return {{_mm256_slli_epi32(a.v[0], n), _mm256_slli_epi32(a.v[1], n)}};
}
// Quads whose products of two codes and two activations may be added in 16 bits: 8 * 2 * 15 * 128 fits, and so on.
template <int kBits>
inline constexpr int kQuadsInShorts = kBits == 4   ? 8
                                      : kBits == 5 ? 4
                                      : kBits == 6 ? 2
                                                   : 1;

// The compiler would add a tree of products instead of one after the other and keep all of them, mostly in memory.
TM_INLINE __m256i in_order(__m256i sum) {
  asm("" : "+x"(sum));
  return sum;
}

template <int kBits, int kNth>
TM_INLINE void add_half(__m256i& sums, __m256i& shorts, __m256i codes, __m256i quad) {
  if constexpr (kBits == 8) {
    const __m256i weights = _mm256_xor_si256(codes, _mm256_set1_epi8(static_cast<char>(0x80)));
    quad = _mm256_sign_epi8(quad, weights);
    codes = _mm256_abs_epi8(weights);
  }
  constexpr int kPlace = kNth % kQuadsInShorts<kBits>;
  const __m256i pairs = _mm256_maddubs_epi16(codes, quad);
  shorts = kPlace == 0 ? pairs : in_order(_mm256_add_epi16(shorts, pairs));
  if constexpr (kPlace == kQuadsInShorts<kBits> - 1) {
    sums = in_order(_mm256_add_epi32(sums, _mm256_madd_epi16(shorts, _mm256_set1_epi16(1))));
  }
}

template <int kBits>
struct Dot {
  Sums sums;
  __m256i shorts[2];

  template <int kNth>
  TM_INLINE void add(Codes codes, Quad quad) {
    add_half<kBits, kNth>(sums.v[0], shorts[0], codes.v[0], quad.v);
    add_half<kBits, kNth>(sums.v[1], shorts[1], codes.v[1], quad.v);
  }
};
template <int j>
TM_INLINE Sums byte_of_lane(Codes codes) {
  const __m256i low = _mm256_set1_epi32(0xff);
  return {{_mm256_and_si256(_mm256_srli_epi32(codes.v[0], 8 * j), low),
           _mm256_and_si256(_mm256_srli_epi32(codes.v[1], 8 * j), low)}};
}
TM_INLINE Sums bits_of_lane(Codes codes, int shift, int mask) {
  const __m128i count = _mm_cvtsi32_si128(shift);
  const __m256i bits = _mm256_set1_epi32(mask);
  return {{_mm256_and_si256(_mm256_srl_epi32(codes.v[0], count), bits),
           _mm256_and_si256(_mm256_srl_epi32(codes.v[1], count), bits)}};
}
TM_INLINE Sums or_shifted(Sums low, Sums high, int n) {
  const __m128i count = _mm_cvtsi32_si128(n);
  return {{_mm256_or_si256(low.v[0], _mm256_sll_epi32(high.v[0], count)),
           _mm256_or_si256(low.v[1], _mm256_sll_epi32(high.v[1], count))}};
}
TM_INLINE Vec to_vec(Sums sums, int part) { return {_mm256_cvtepi32_ps(sums.v[part])}; }

TM_INLINE Vec first_bf16(Codes pairs, int part) { return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs.v[part], 16))}; }
TM_INLINE Vec second_bf16(Codes pairs, int part) {
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm256_castsi256_ps(_mm256_and_si256(pairs.v[part], high))};
}

struct Bytes {
  __m256i v;
};

TM_INLINE Bytes round_to_bytes(const Vec (&x)[4]) {
  const __m256i first = _mm256_packs_epi32(_mm256_cvtps_epi32(x[0].v), _mm256_cvtps_epi32(x[1].v));
  const __m256i second = _mm256_packs_epi32(_mm256_cvtps_epi32(x[2].v), _mm256_cvtps_epi32(x[3].v));
  const __m256i mixed = _mm256_packs_epi16(first, second);  // 32-bit groups 0 2 4 6 | 1 3 5 7 of the order wanted
  return {_mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))};
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
