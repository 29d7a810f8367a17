// SPDX-License-Identifier: Apache-2.0
//
// Rounding to bfloat16 by AVX512_BF16, in the steps that its products and those of AMX take.
#pragma once

#include <cstdint>

#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

constexpr int kStepK = 32;  // a vector of bfloat16

// Two vectors as 32 bfloat16, to the nearest, ties to even; subnormal numbers become 0.
TM_INLINE __m512i round_pair(__m512 first, __m512 second) {
  return __builtin_bit_cast(__m512i, _mm512_cvtne2ps_pbh(second, first));
}

// Elements [k, k + 32) of a row as far as there are any, then zeros; times `factor`.
TM_INLINE __m512i round_step(const float* x, int64_t k, int64_t cols, __m512 factor) {
  const auto part = [&](int64_t begin) TM_INLINE_LAMBDA {
    const int64_t left = cols - begin;
    return left <= 0 ? _mm512_setzero_ps()
                     : _mm512_maskz_loadu_ps(first_lanes(left < kLanes ? static_cast<int>(left) : kLanes), x + begin);
  };
  return round_pair(_mm512_mul_ps(part(k), factor), _mm512_mul_ps(part(k + kLanes), factor));
}

// Rows of float32, `stride` elements apart, as [k / 32][tokens][32] bfloat16, zero past `cols`.
TM_INLINE void round_rows(const float* x, int64_t stride, int tokens, int64_t cols, uint16_t* out) {
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int token = 0; token < tokens; ++token, x += stride, out += kStepK) {
    uint16_t* to = out;
    for (int64_t k = 0; k < cols; k += kStepK, to += tokens * kStepK) {
      _mm512_storeu_si512(to, round_step(x, k, cols, one));
    }
  }
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
