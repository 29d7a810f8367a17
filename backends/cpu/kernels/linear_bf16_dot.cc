// SPDX-License-Identifier: Apache-2.0
#include "kernels/dot_bf16.h"
#include "kernels/epilogue.h"
#include "kernels/linear_bf16.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

static_assert(kBf16StepK == kStepK);

// out: [kTokens, kBlockCols]
template <int kTokens>
void sum_tile(const uint16_t* activations, const uint8_t* first, const uint8_t* second, int64_t cols, float* out) {
  DotSums<kTokens> sums;
  sums.zero();
  const int64_t pairs = round_up(cols, 2) / 2;  // the panels end there
  for (int64_t pair = 0; pair < pairs; pair += kStepPairs) {
    const int64_t left = pairs - pair;
    sums.add(activations, first, second, left < kStepPairs ? static_cast<int>(left) : kStepPairs);
    activations += kTokens * kStepK;
    first += kStepBytes;
    second += kStepBytes;
  }
  sums.store(out, kBlockCols);
}

using SumFn = void (*)(const uint16_t*, const uint8_t*, const uint8_t*, int64_t, float*);

template <int kTokens = 1>
TM_INLINE SumFn sum_function(int tokens) {
  if constexpr (kTokens < kMaxDotRows) {
    if (tokens > kTokens) return sum_function<kTokens + 1>(tokens);
  }
  return sum_tile<kTokens>;
}

void run(const LinearTask& task) {
  alignas(64) float sums[kMaxDotRows * kBlockCols];
  const int64_t cols = task.panels.cols;
  for (int64_t panel = task.panel_begin; panel < task.panel_end; panel += kBlockPanels) {
    // A missing panel repeats the one there is and is not stored.
    const int present = task.panel_end - panel < kBlockPanels ? 1 : kBlockPanels;
    const uint8_t* const first = task.panels.panel(panel);
    const uint8_t* const second = task.panels.panel(panel + present - 1);
    for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      const int tokens = task.tiles.tokens(tile);
      if (tokens == 0) continue;
      const int64_t token = task.tiles.begin(tile);
      const uint16_t* activations = static_cast<const uint16_t*>(task.activations) + token * bf16_cols(cols);
      sum_function(tokens)(activations, first, second, cols, sums);
      store_tile(task, {sums, kBlockCols}, token, tokens, panel, present);
    }
  }
}

}  // namespace

void fill(LinearBf16Kernels& kernels) { kernels = {kMaxDotRows, run, round_rows}; }

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
