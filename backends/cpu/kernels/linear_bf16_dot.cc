// SPDX-License-Identifier: Apache-2.0
#include "kernels/epilogue.h"
#include "kernels/linear_bf16.h"
#include "kernels/round_bf16.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

static_assert(kBf16StepK == kStepK && kLanes == kPanelRows);

constexpr int kTilePanels = 2;
constexpr int kMaxTokens = 12;  // its sums, the weights of both panels and one activation fill the registers
constexpr int kStepPairs = kStepK / 2;

using Weights = const uint8_t* const[kTilePanels];
using Bf16Pairs = __m512bh;

TM_INLINE Bf16Pairs load_pairs(const uint8_t* weights) {
  return __builtin_bit_cast(Bf16Pairs, _mm512_loadu_si512(weights));
}
TM_INLINE Bf16Pairs set_pairs(const uint16_t* pair) {
  int bits;
  __builtin_memcpy(&bits, pair, sizeof bits);
  return __builtin_bit_cast(Bf16Pairs, _mm512_set1_epi32(bits));
}

// Pairs [0, count) of a step of k.
template <int kTokens>
TM_INLINE void add_pairs(const Weights& panels, int64_t first_pair, const uint16_t* activations, int count,
                         __m512 (&sums)[kTokens][kTilePanels]) {
  for (int pair = 0; pair < count; ++pair) {
    Bf16Pairs weights[kTilePanels];
#pragma GCC unroll 2
    for (int p = 0; p < kTilePanels; ++p) weights[p] = load_pairs(panels[p] + (first_pair + pair) * kVectorBytes);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const Bf16Pairs activation = set_pairs(activations + t * kStepK + 2 * pair);
#pragma GCC unroll 2
      for (int p = 0; p < kTilePanels; ++p) sums[t][p] = _mm512_dpbf16_ps(sums[t][p], activation, weights[p]);
    }
  }
}

// out: [kTokens, kTilePanels * kPanelRows]
template <int kTokens>
void sum_tile(const Weights& panels, const uint16_t* activations, int64_t cols, float* out) {
  __m512 sums[kTokens][kTilePanels];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kTilePanels; ++p) sums[t][p] = _mm512_setzero_ps();
  }
  const int64_t pairs = round_up(cols, 2) / 2;
  int64_t pair = 0;
  for (; pair + kStepPairs <= pairs; pair += kStepPairs, activations += kTokens * kStepK) {
    add_pairs<kTokens>(panels, pair, activations, kStepPairs, sums);
  }
  add_pairs<kTokens>(panels, pair, activations, static_cast<int>(pairs - pair), sums);
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kTilePanels; ++p) _mm512_store_ps(out + (t * kTilePanels + p) * kPanelRows, sums[t][p]);
  }
}

using SumFn = void (*)(const Weights&, const uint16_t*, int64_t, float*);

template <int kTokens = 1>
TM_INLINE SumFn sum_function(int tokens) {
  if constexpr (kTokens < kMaxTokens) {
    if (tokens > kTokens) return sum_function<kTokens + 1>(tokens);
  }
  return sum_tile<kTokens>;
}

void run(const LinearTask& task) {
  constexpr int kTileCols = kTilePanels * kPanelRows;
  alignas(64) float sums[kMaxTokens * kTileCols];
  const int64_t cols = task.panels.cols;
  for (int64_t panel = task.panel_begin; panel < task.panel_end; panel += kTilePanels) {
    const int present = task.panel_end - panel < kTilePanels ? 1 : kTilePanels;
    // A missing panel repeats the one there is and is not stored.
    const Weights panels = {task.panels.panel(panel), task.panels.panel(panel + present - 1)};
    for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      const int tokens = task.tiles.tokens(tile);
      if (tokens == 0) continue;
      const int64_t token = task.tiles.begin(tile);
      sum_function(tokens)(panels, static_cast<const uint16_t*>(task.activations) + token * bf16_cols(cols), cols,
                           sums);
      store_tile(task, {sums, kTileCols}, token, tokens, panel, present);
    }
  }
}

}  // namespace

void fill(LinearBf16Kernels& kernels) { kernels = {kMaxTokens, run, round_rows}; }

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
