// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels/amx_bf16.h"
#include "kernels/epilogue.h"
#include "kernels/linear_bf16.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

static_assert(kBf16StepK == kStepK);

// Both panels' weights of the last, incomplete step of k, zero past the last.
struct Tail {
  alignas(64) uint8_t panels[kBlockPanels][kStepBytes];
};

// A finished block on its way to the output. Bias, activation and stores take about as long as the products of a block,
// and the processor does both at once where they are mixed.
struct Pending {
  const LinearTask* task;
  const float* sums;
  int64_t token;
  int64_t panel;
  int panels;
  int rows = 0;  // left

  TM_INLINE void write(int count) {
    const int now = count < rows ? count : rows;
    if (now <= 0) return;
    store_tile(*task, {sums, kBlockCols}, token, now, panel, panels);
    sums += now * kBlockCols;
    token += now;
    rows -= now;
  }
};

template <bool kBothHalves>
void sum_block(const uint16_t* activations, int tokens, int64_t cols, const uint8_t* const (&panels)[kBlockPanels],
               const Tail& tail, Pending& pending, float* sums) {
  zero_sums<kBothHalves>();
  const int64_t whole = cols / kStepK;
  const int rows_per_step = static_cast<int>((kBlockRows + whole) / (whole + 1));
  for (int64_t step = 0; step < whole; ++step, activations += tokens * kStepK) {
    const int64_t offset = step * kStepBytes;
    add_step<kBothHalves>(activations, panels[0] + offset, panels[1] + offset);
    pending.write(rows_per_step);
  }
  if (whole * kStepK < cols) add_step<kBothHalves>(activations, tail.panels[0], tail.panels[1]);
  pending.write(kBlockRows);
  store_sums<kBothHalves>(sums, kBlockCols);
}

TM_INLINE void fill_tail(int64_t cols, const uint8_t* const (&panels)[kBlockPanels], Tail& tail) {
  const int64_t whole = cols / kStepK;
  const int64_t bytes = round_up(cols - whole * kStepK, 2) / 2 * kVectorBytes;
  if (bytes == 0) return;
  for (int p = 0; p < kBlockPanels; ++p) {
    std::memcpy(tail.panels[p], panels[p] + whole * kStepBytes, static_cast<size_t>(bytes));
    std::memset(tail.panels[p] + bytes, 0, static_cast<size_t>(kStepBytes - bytes));
  }
}

void run(const LinearTask& task) {
  alignas(64) float sums[2][kBlockRows * kBlockCols];  // one is written to the output, the other filled
  int filled = 0;
  Pending pending;
  Tail tail;
  const int64_t cols = task.panels.cols;
  int configured = 0;
  for (int64_t panel = task.panel_begin; panel < task.panel_end; panel += kBlockPanels) {
    const int present = task.panel_end - panel < kBlockPanels ? 1 : kBlockPanels;
    // A missing panel repeats the one there is and is not stored.
    const uint8_t* const panels[kBlockPanels] = {task.panels.panel(panel), task.panels.panel(panel + present - 1)};
    fill_tail(cols, panels, tail);
    for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      const int tokens = task.tiles.tokens(tile);
      if (tokens == 0) continue;
      if (tokens != configured) configure_block(configured = tokens);
      const int64_t token = task.tiles.begin(tile);
      const uint16_t* activations = static_cast<const uint16_t*>(task.activations) + token * bf16_cols(cols);
      const auto sum = tokens > kHalfRows ? sum_block<true> : sum_block<false>;
      sum(activations, tokens, cols, panels, tail, pending, sums[filled]);
      pending = {&task, sums[filled], token, panel, present, tokens};
      filled = 1 - filled;
    }
  }
  pending.write(kBlockRows);
  release_tiles();
}

}  // namespace

void fill(LinearBf16Kernels& kernels) { kernels = {kBlockRows, run, round_rows}; }

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
