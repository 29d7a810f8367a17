// SPDX-License-Identifier: Apache-2.0
//
// Four tiles of sums: two of 16 tokens by two panels of 16 rows. A panel as it is packed, pairs of k by 16 rows, is
// what the instruction wants as its second operand.
#include "kernels/linear_bf16.h"

#include <cstring>

#include "kernels/amx.h"
#include "kernels/epilogue.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr int kHalfTokens = kBf16TileTokens / 2;
constexpr int kPanels = 2;
constexpr int kWidth = kPanels * kPanelRows;
constexpr int kStepBytes = kBf16StepK / 2 * kVectorBytes;  // of a panel
constexpr int kRowBytes = kBf16StepK * 2;                  // of a tile of activations

// Tiles: sums of (tokens, panel) 0 (0, 0), 1 (0, 1), 2 (1, 0), 3 (1, 1); activations 4, 5; weights 6, 7.
template <int kSums, int kA, int kB>
TM_INLINE void multiply_bf16_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kA), "i"(kB));
}

TM_INLINE void configure(int tokens) {
  const int halves[2] = {tokens < kHalfTokens ? tokens : kHalfTokens, tokens > kHalfTokens ? tokens - kHalfTokens : 1};
  TileShapes shapes;
  for (int half = 0; half < 2; ++half) {
    shapes.set(2 * half, halves[half], kVectorBytes);
    shapes.set(2 * half + 1, halves[half], kVectorBytes);
    shapes.set(4 + half, halves[half], kRowBytes);
    shapes.set(6 + half, kBf16StepK / 2, kVectorBytes);
  }
  configure_tiles(shapes);
}

// Both panels' weights of the last, incomplete step of k, zero past the last.
struct Tail {
  alignas(64) uint8_t panels[kPanels][kStepBytes];
};

template <bool kBothHalves>
TM_INLINE void add_step(const uint16_t* activations, int64_t stride, const uint8_t* first, const uint8_t* second) {
  load_tile<4>(activations, stride * 2);
  load_tile<6>(first, kVectorBytes);
  multiply_bf16_tiles<0, 4, 6>();
  load_tile<7>(second, kVectorBytes);
  multiply_bf16_tiles<1, 4, 7>();
  if constexpr (kBothHalves) {
    load_tile<5>(activations + kHalfTokens * stride, stride * 2);
    multiply_bf16_tiles<2, 5, 6>();
    multiply_bf16_tiles<3, 5, 7>();
  }
}

template <bool kBothHalves>
void sum_tile(const uint16_t* activations, int64_t cols, const uint8_t* const (&panels)[kPanels], const Tail& tail,
              float* sums) {
  const int64_t stride = bf16_stride(cols);
  zero_tile<0>();
  zero_tile<1>();
  if constexpr (kBothHalves) {
    zero_tile<2>();
    zero_tile<3>();
  }
  const int64_t whole = cols / kBf16StepK;
  for (int64_t step = 0; step < whole; ++step) {
    const int64_t offset = step * kStepBytes;
    add_step<kBothHalves>(activations + step * kBf16StepK, stride, panels[0] + offset, panels[1] + offset);
  }
  if (whole * kBf16StepK < cols) {
    add_step<kBothHalves>(activations + whole * kBf16StepK, stride, tail.panels[0], tail.panels[1]);
  }
  constexpr int kSumsStride = kWidth * sizeof(float);
  store_tile_rows<0>(sums, kSumsStride);
  store_tile_rows<1>(sums + kPanelRows, kSumsStride);
  if constexpr (kBothHalves) {
    store_tile_rows<2>(sums + kHalfTokens * kWidth, kSumsStride);
    store_tile_rows<3>(sums + kHalfTokens * kWidth + kPanelRows, kSumsStride);
  }
}

TM_INLINE void fill_tail(int64_t cols, const uint8_t* const (&panels)[kPanels], Tail& tail) {
  const int64_t whole = cols / kBf16StepK;
  const int64_t bytes = round_up(cols - whole * kBf16StepK, 2) / 2 * kVectorBytes;
  if (bytes == 0) return;
  for (int p = 0; p < kPanels; ++p) {
    std::memcpy(tail.panels[p], panels[p] + whole * kStepBytes, static_cast<size_t>(bytes));
    std::memset(tail.panels[p] + bytes, 0, static_cast<size_t>(kStepBytes - bytes));
  }
}

void run(const LinearTask& task) {
  alignas(64) float sums[kBf16TileTokens * kWidth];
  Tail tail;
  const int64_t cols = task.panels.cols;
  int configured = 0;
  for (int64_t panel = task.panel_begin; panel < task.panel_end; panel += kPanels) {
    const int present = task.panel_end - panel < kPanels ? 1 : kPanels;
    // A missing panel repeats the one there is and is not stored.
    const uint8_t* const panels[kPanels] = {task.panels.panel(panel), task.panels.panel(panel + present - 1)};
    fill_tail(cols, panels, tail);
    for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      const int tokens = task.tiles.tokens(tile);
      if (tokens == 0) continue;
      if (tokens != configured) configure(configured = tokens);
      const int64_t token = task.tiles.begin(tile);
      const uint16_t* activations = static_cast<const uint16_t*>(task.activations) + token * bf16_stride(cols);
      if (tokens > kHalfTokens) {
        sum_tile<true>(activations, cols, panels, tail, sums);
      } else {
        sum_tile<false>(activations, cols, panels, tail, sums);
      }
      store_tile(task, {sums, kWidth}, token, tokens, panel, present);
    }
  }
  release_tiles();
}

// To the nearest, ties to even; a NaN stays one.
TM_INLINE __m256i round_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
}

void round_tile(const float* x, int64_t stride, int tokens, int64_t cols, uint16_t* out) {
  const int64_t padded = bf16_stride(cols);
  for (int token = 0; token < tokens; ++token, x += stride, out += padded) {
    int64_t k = 0;
    for (; k + 16 <= cols; k += 16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + k), round_bf16(_mm512_loadu_ps(x + k)));
    }
    const auto rest = static_cast<__mmask16>((1u << (cols - k)) - 1);
    for (; k < padded; k += 16) {
      const __m512 values = k < cols ? _mm512_maskz_loadu_ps(rest, x + k) : _mm512_setzero_ps();
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + k), round_bf16(values));
    }
  }
}

}  // namespace

void fill(LinearBf16Kernels& kernels) { kernels = {run, round_tile}; }

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
