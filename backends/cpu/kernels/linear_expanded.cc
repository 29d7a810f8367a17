// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear_expanded.h"

#include "kernels/dequantize.h"
#include "kernels/epilogue.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr int64_t kMaxK = kExpandedK;

using Weights = const float* const[kExpandedPanelsPerTile];

// Columns [k0, k0 + count) of a panel as floats: in `room`, or where they are.
template <PanelFormat kFormat>
TM_INLINE const float* expanded_columns(const uint8_t* panel, int64_t k0, float* room, int64_t count) {
  if constexpr (kFormat == PanelFormat::kF32) {
    return reinterpret_cast<const float*>(panel) + k0 * kPanelRows;
  } else {
    Expander<kFormat>::expand(panel, k0, room, count);
    return room;
  }
}

// sums: [kTokens, kExpandedPanelsPerTile * kPanelRows]; read if `resume`. activations: [k][kTokens].
template <int kTokens>
void add_products(const Weights& weights, const float* activations, int64_t count, bool resume, float* sums) {
  Rows results[kTokens][kExpandedPanelsPerTile];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kExpandedPanelsPerTile; ++p) {
      const float* sum = sums + (t * kExpandedPanelsPerTile + p) * kPanelRows;
      results[t][p] = resume ? load_rows(sum) : set_rows(0.0f);
    }
  }
  for (int64_t k = 0; k < count; ++k) {
    Rows weight[kExpandedPanelsPerTile];
#pragma GCC unroll 2
    for (int p = 0; p < kExpandedPanelsPerTile; ++p) weight[p] = load_rows(weights[p] + k * kPanelRows);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const Rows activation = set_rows(activations[k * kTokens + t]);
#pragma GCC unroll 2
      for (int p = 0; p < kExpandedPanelsPerTile; ++p) results[t][p] = fma(weight[p], activation, results[t][p]);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kExpandedPanelsPerTile; ++p) {
      store_rows(sums + (t * kExpandedPanelsPerTile + p) * kPanelRows, results[t][p]);
    }
  }
}

using ProductsFn = void (*)(const Weights&, const float*, int64_t, bool, float*);

template <int kTokens = 1>
TM_INLINE ProductsFn products_function(int tokens) {
  if constexpr (kTokens < kF32MaxTokens) {
    if (tokens > kTokens) return products_function<kTokens + 1>(tokens);
  }
  return add_products<kTokens>;
}

// A finished tile: channel scales if the format has them, then the epilogue.
template <PanelFormat kFormat>
void finish_tile(const LinearTask& task, float* sums, int64_t tile, int64_t panel, int present) {
  const int tokens = task.tiles.tokens(tile);
  if constexpr (kFormat == PanelFormat::kInt8Channel) {
    for (int p = 0; p < present; ++p) {
      const Rows scale = load_rows(reinterpret_cast<const float*>(task.panels.panel(panel + p)));
      for (int t = 0; t < tokens; ++t) {
        float* sum = sums + (t * kExpandedPanelsPerTile + p) * kPanelRows;
        store_rows(sum, load_rows(sum) * scale);
      }
    }
  }
  store_tile(task, {sums, kExpandedPanelsPerTile * kPanelRows}, task.tiles.begin(tile), tokens, panel, present);
}

// kExpandedPanelsPerTile panels of tiles [tile_begin, tile_end), at most kExpandedTokens tokens.
template <PanelFormat kFormat>
void run_rectangle(const LinearTask& task, int64_t panel, int64_t tile_begin, int64_t tile_end) {
  const int64_t cols = task.panels.cols;
  const int present = static_cast<int>(task.panel_end - panel < kExpandedPanelsPerTile ? task.panel_end - panel
                                                                                       : kExpandedPanelsPerTile);
  float* const sums = task.scratch + kExpandedPanelsPerTile * kPanelRows * kMaxK;
  const int64_t first_token = task.tiles.begin(tile_begin);
  for (int64_t k0 = 0; k0 < cols; k0 += kMaxK) {
    const int64_t count = cols - k0 < kMaxK ? cols - k0 : kMaxK;
    const float* weights[kExpandedPanelsPerTile];
    for (int p = 0; p < kExpandedPanelsPerTile; ++p) {
      float* room = task.scratch + p * kPanelRows * kMaxK;
      weights[p] = p < present ? expanded_columns<kFormat>(task.panels.panel(panel + p), k0, room, count) : weights[0];
    }
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      const int tokens = task.tiles.tokens(tile);
      const int64_t token = task.tiles.begin(tile);
      const float* activations = static_cast<const float*>(task.activations) + token * cols + k0 * tokens;
      products_function(tokens)(weights, activations, count, k0 > 0,
                                sums + (token - first_token) * kExpandedPanelsPerTile * kPanelRows);
    }
  }
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const int64_t at = (task.tiles.begin(tile) - first_token) * kExpandedPanelsPerTile * kPanelRows;
    finish_tile<kFormat>(task, sums + at, tile, panel, present);
  }
}

template <PanelFormat kFormat>
void run(const LinearTask& task) {
  constexpr int64_t kTiles = kExpandedTokens / kF32MaxTokens;
  for (int64_t tile = task.tile_begin; tile < task.tile_end; tile += kTiles) {
    const int64_t tile_end = tile + kTiles < task.tile_end ? tile + kTiles : task.tile_end;
    for (int64_t panel = task.panel_begin; panel < task.panel_end; panel += kExpandedPanelsPerTile) {
      run_rectangle<kFormat>(task, panel, tile, tile_end);
    }
  }
}

template <PanelFormat... kFormats>
TM_INLINE void set_formats(LinearExpandedKernels& kernels) {
  ((kernels.run[static_cast<int>(kFormats)] = run<kFormats>), ...);
}

}  // namespace

void fill(LinearExpandedKernels& kernels) {
  kernels = {};
  kernels.max_tile_tokens = kF32MaxTokens;
  kernels.min_float_tiles = kMinExpandedFloatTiles;
  set_formats<PanelFormat::kQ4_0, PanelFormat::kQ4_1, PanelFormat::kQ5_0, PanelFormat::kQ5_1, PanelFormat::kQ8_0,
              PanelFormat::kQ4_K, PanelFormat::kQ5_K, PanelFormat::kQ6_K, PanelFormat::kInt4Group,
              PanelFormat::kInt8Group, PanelFormat::kInt8Channel, PanelFormat::kF32, PanelFormat::kF16,
              PanelFormat::kBf16>(kernels);
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
