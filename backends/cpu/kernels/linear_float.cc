// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear_float.h"

#include "kernels/epilogue.h"
#include "kernels/rows.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

// Reads kStep consecutive k of a panel, one after the other. step: index of the kStep k.
template <PanelFormat kFormat>
struct Weights;

template <>
struct Weights<PanelFormat::kF32> {
  static constexpr int kStep = 1;
  template <int j>
  TM_INLINE static Rows load(const uint8_t* panel, int64_t step) {
    return load_rows(reinterpret_cast<const float*>(panel) + step * kPanelRows);
  }
};

template <>
struct Weights<PanelFormat::kF16> {
  static constexpr int kStep = 1;
  template <int j>
  TM_INLINE static Rows load(const uint8_t* panel, int64_t step) {
    return load_rows(reinterpret_cast<const F16*>(panel) + step * kPanelRows);
  }
};

template <>
struct Weights<PanelFormat::kBf16> {
  static constexpr int kStep = 2;
  template <int j>
  TM_INLINE static Rows load(const uint8_t* panel, int64_t step) {
    const Codes pairs = load_codes(panel + step * kVectorBytes);
    return j == 0 ? first_bf16(pairs) : second_bf16(pairs);
  }
};

template <PanelFormat kFormat, int kPanels, int kTokens>
struct Tile {
  using W = Weights<kFormat>;

  Rows results[kTokens][kPanels];

  // k = j of the step. activations: [k][kTokens], from the step's first k on.
  template <int j>
  TM_INLINE void add_k(const uint8_t* const (&panels)[kPanels], int64_t step, const float* activations) {
    Rows weight[kPanels];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) weight[p] = W::template load<j>(panels[p], step);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const Rows activation = set_rows(activations[j * kTokens + t]);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) results[t][p] = fma(weight[p], activation, results[t][p]);
    }
  }

  // prefetch: distance to the bytes that will be read next.
  TM_INLINE void sum_all(const uint8_t* const (&panels)[kPanels], const float* activations, int64_t cols,
                         size_t prefetch) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) results[t][p] = set_rows(0.0f);
    }
    const int64_t steps = cols / W::kStep;
    for (int64_t step = 0; step < steps; ++step, activations += W::kStep * kTokens) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        __builtin_prefetch(panels[p] + prefetch + step * (W::kStep * kPanelRows * float_panel_bytes(kFormat)), 0, 2);
      }
      add_k<0>(panels, step, activations);
      if constexpr (W::kStep == 2) add_k<1>(panels, step, activations);
    }
    if (cols % W::kStep != 0) add_k<0>(panels, steps, activations);
  }
};

template <PanelFormat kFormat, int kPanels, int kTokens>
void run_tile(const LinearTask& task, int64_t panel, int64_t tile_index, size_t prefetch) {
  const int present = static_cast<int>(task.panel_end - panel < kPanels ? task.panel_end - panel : kPanels);
  const uint8_t* panels[kPanels];
  for (int p = 0; p < kPanels; ++p) {  // a missing panel repeats the last one and is not stored
    panels[p] = task.panels.panel(panel + (p < present ? p : present - 1));
  }
  const int64_t token = task.tiles.begin(tile_index);
  const float* activations = static_cast<const float*>(task.activations) + token * task.panels.cols;

  Tile<kFormat, kPanels, kTokens> tile;
  tile.sum_all(panels, activations, task.panels.cols, prefetch);

  alignas(64) float sums[kTokens * kPanels * kPanelRows];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) store_rows(sums + (t * kPanels + p) * kPanelRows, tile.results[t][p]);
  }
  store_tile(task, {sums, kPanels * kPanelRows}, token, kTokens, panel, present);
}

using TileFn = void (*)(const LinearTask&, int64_t panel, int64_t tile, size_t prefetch);

template <PanelFormat kFormat, int kTokens = 1>
TM_INLINE TileFn tile_function(int tokens) {
  if constexpr (kTokens < kF32MaxTokens) {
    if (tokens > kTokens) return tile_function<kFormat, kTokens + 1>(tokens);
  }
  return run_tile<kFormat, kFloatPanelsPerTile, kTokens>;
}

template <PanelFormat kFormat>
void run(const LinearTask& task) {
  constexpr int kStep = kFloatPanelsPerTile;
  for (int64_t panel = task.panel_begin; panel < task.panel_end; panel += kStep) {
    const bool more = panel + kStep < task.panels.count();
    for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      const size_t prefetch = more && tile + 1 == task.tile_end ? kStep * task.panels.bytes_per_panel : 0;
      tile_function<kFormat>(task.tiles.tokens(tile))(task, panel, tile, prefetch);
    }
  }
}

}  // namespace

void fill(LinearFloatKernels& kernels) {
  kernels = {};
  kernels.run[static_cast<int>(PanelFormat::kF32)] = run<PanelFormat::kF32>;
  kernels.run[static_cast<int>(PanelFormat::kF16)] = run<PanelFormat::kF16>;
  kernels.run[static_cast<int>(PanelFormat::kBf16)] = run<PanelFormat::kBf16>;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
