// SPDX-License-Identifier: Apache-2.0
//
// simd.h for AVX-512 (F, BW, VL, DQ).
#pragma once

#include <immintrin.h>

namespace turbomind::cpu::TM_ISA_NAMESPACE {

inline constexpr int kLanes = 16;

struct Vec {
  __m512 v;
};

struct Mask {
  __mmask16 v;
};

TM_INLINE Vec set(float x) { return {_mm512_set1_ps(x)}; }
TM_INLINE Vec zero() { return {_mm512_setzero_ps()}; }

TM_INLINE __mmask16 first_lanes(int count) {
  return count >= kLanes ? __mmask16(0xffff) : static_cast<__mmask16>((1u << count) - 1u);
}

TM_INLINE __m512 from_bf16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
TM_INLINE __m256i to_bf16_bits(__m512 a) {
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  const __m512i chosen = _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16));
}
TM_INLINE __m256i to_f16_bits(__m512 a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
TM_INLINE __m128i to_int8_bits(__m512 a) {
  const __m512 bounded = _mm512_min_ps(_mm512_max_ps(a, _mm512_set1_ps(-128.0f)), _mm512_set1_ps(127.0f));
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(bounded));
}

TM_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
TM_INLINE Vec load(const Bf16* p) { return {from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
TM_INLINE Vec load(const F16* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
TM_INLINE Vec load(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
TM_INLINE Vec load(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}

TM_INLINE Vec load(const float* p, int count) { return {_mm512_maskz_loadu_ps(first_lanes(count), p)}; }
TM_INLINE Vec load(const Bf16* p, int count) { return {from_bf16(_mm256_maskz_loadu_epi16(first_lanes(count), p))}; }
TM_INLINE Vec load(const F16* p, int count) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(count), p))};
}
TM_INLINE Vec load(const int8_t* p, int count) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first_lanes(count), p)))};
}

TM_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
TM_INLINE void store(Bf16* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16_bits(a.v)); }
TM_INLINE void store(F16* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_f16_bits(a.v)); }
TM_INLINE void store(int8_t* p, Vec a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_int8_bits(a.v)); }

TM_INLINE void store(float* p, Vec a, int count) { _mm512_mask_storeu_ps(p, first_lanes(count), a.v); }
TM_INLINE void store(Bf16* p, Vec a, int count) { _mm256_mask_storeu_epi16(p, first_lanes(count), to_bf16_bits(a.v)); }
TM_INLINE void store(F16* p, Vec a, int count) { _mm256_mask_storeu_epi16(p, first_lanes(count), to_f16_bits(a.v)); }
TM_INLINE void store(int8_t* p, Vec a, int count) { _mm_mask_storeu_epi8(p, first_lanes(count), to_int8_bits(a.v)); }

TM_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
TM_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
TM_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
TM_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
TM_INLINE Vec operator-(Vec a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
TM_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
TM_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
TM_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
TM_INLINE Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
TM_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
TM_INLINE Vec round(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
TM_INLINE Mask less(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
TM_INLINE Mask equal(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
TM_INLINE Vec select(Mask mask, Vec if_true, Vec if_false) {
  return {_mm512_mask_blend_ps(mask.v, if_false.v, if_true.v)};
}
TM_INLINE uint32_t mask_bits(Mask mask) { return mask.v; }
TM_INLINE Mask lanes_of(uint32_t bits) { return {static_cast<__mmask16>(bits)}; }
TM_INLINE bool all(Mask mask) { return mask.v == 0xffff; }

TM_INLINE Vec scale_by_power(Vec x, Vec n) { return {_mm512_scalef_ps(x.v, n.v)}; }

TM_INLINE __m256 high_half(__m512 a) { return _mm512_extractf32x8_ps(a, 1); }

TM_INLINE float sum(Vec a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), high_half(a.v));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
TM_INLINE float max_lane(Vec a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), high_half(a.v));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
