// SPDX-License-Identifier: Apache-2.0
//
// Products of bfloat16 matrices by the dot products of AVX512_BF16, in the blocks, layouts and order that amx_bf16.h
// has; two k are added at a time.
#pragma once

#include "kernels/panels.h"
#include "kernels/round_bf16.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

static_assert(kLanes == kPanelRows);

constexpr int kBlockRows = 32;
constexpr int kBlockPanels = 2;
constexpr int kBlockCols = kBlockPanels * kPanelRows;
constexpr int kStepPairs = kStepK / 2;
constexpr int kStepBytes = kStepPairs * kVectorBytes;  // of a panel
constexpr int kMaxDotRows = 12;  // their sums, a vector of both panels and one pair fill the registers

template <int kRows>
struct DotSums {
  __m512 of[kRows][kBlockPanels];

  TM_INLINE void zero() {
#pragma GCC unroll 16
    for (auto& row : of) row[0] = row[1] = _mm512_setzero_ps();
  }
  // sums: [kRows][kBlockCols], `stride` elements apart.
  TM_INLINE void load(const float* sums, int64_t stride) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kBlockPanels; ++p) of[r][p] = _mm512_load_ps(sums + r * stride + p * kPanelRows);
    }
  }
  TM_INLINE void store(float* sums, int64_t stride) const {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kBlockPanels; ++p) _mm512_store_ps(sums + r * stride + p * kPanelRows, of[r][p]);
    }
  }

  // The first `pairs` pairs of k of a step. rows: [kRows][kStepK].
  TM_INLINE void add(const uint16_t* rows, const uint8_t* first, const uint8_t* second, int pairs) {
    for (int pair = 0; pair < pairs; ++pair) {
      const __m512bh panels[kBlockPanels] = {load_pairs(first + pair * kVectorBytes),
                                             load_pairs(second + pair * kVectorBytes)};
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const __m512bh row = set_pairs(rows + r * kStepK + 2 * pair);
        of[r][0] = _mm512_dpbf16_ps(of[r][0], row, panels[0]);
        of[r][1] = _mm512_dpbf16_ps(of[r][1], row, panels[1]);
      }
    }
  }

 private:
  TM_INLINE static __m512bh load_pairs(const uint8_t* panel) {
    return __builtin_bit_cast(__m512bh, _mm512_loadu_si512(panel));
  }
  TM_INLINE static __m512bh set_pairs(const uint16_t* pair) {
    int bits;
    __builtin_memcpy(&bits, pair, sizeof bits);
    return __builtin_bit_cast(__m512bh, _mm512_set1_epi32(bits));
  }
};

template <int kRows>
TM_INLINE void multiply_rows(const uint16_t* rows, const uint8_t* first, const uint8_t* second, int64_t steps,
                             bool resume, float* sums, int64_t stride) {
  DotSums<kRows> results;
  if (resume) {
    results.load(sums, stride);
  } else {
    results.zero();
  }
  for (int64_t step = 0; step < steps; ++step) {
    results.add(rows + step * kBlockRows * kStepK, first + step * kStepBytes, second + step * kStepBytes, kStepPairs);
  }
  results.store(sums, stride);
}

// sums: [kBlockRows][kBlockCols], `stride` elements apart; added to if `resume`. rows: [steps][kBlockRows][kStepK].
inline void multiply_block(const uint16_t* rows, const uint8_t* first, const uint8_t* second, int64_t steps,
                           bool resume, float* sums, int64_t stride) {
  constexpr int kLast = kBlockRows - 2 * kMaxDotRows;
  for (int r = 0; r < kBlockRows - kLast; r += kMaxDotRows) {
    multiply_rows<kMaxDotRows>(rows + r * kStepK, first, second, steps, resume, sums + r * stride, stride);
  }
  constexpr int kDone = kBlockRows - kLast;
  multiply_rows<kLast>(rows + kDone * kStepK, first, second, steps, resume, sums + kDone * stride, stride);
}

// Nothing to set up.
TM_INLINE void begin_products() {}
TM_INLINE void end_products() {}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
