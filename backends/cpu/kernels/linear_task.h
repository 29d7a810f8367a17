// SPDX-License-Identifier: Apache-2.0
//
// One thread's share of a linear: a rectangle of panels x tokens.
#pragma once

#include <cstdint>

#include "kernels/panels.h"
#include "turbomind/abi/tm_backend.h"

namespace turbomind::cpu {

// Token rows [first_row, first_row + rows) cut into `count` tiles as even as can be.
struct TokenTiles {
  int64_t first_row;
  int64_t rows;
  int64_t count;

  int64_t begin(int64_t tile) const { return first_row + tile * rows / count; }
  int tokens(int64_t tile) const { return static_cast<int>(begin(tile + 1) - begin(tile)); }
};

struct LinearTask {
  Panels panels;
  int64_t panel_begin;
  int64_t panel_end;

  const void* activations;  // packed tiles (quantize.h): words for linear_int8, floats for the others
  const int32_t* outliers;  // of every token (panels.h); linear_int8 only
  TokenTiles tiles;
  int64_t tile_begin;
  int64_t tile_end;

  float* out;  // [tokens, rows of the weight]
  int64_t out_stride;
  const float* bias;  // [rows of the weight] or nullptr
  tm_activation_kind activation;
  bool multiply;  // out = activation(...) * out: the second factor of a gated activation is there already

  float* scratch;  // of this thread, 64-byte aligned: kExpandedScratchFloats for linear_expanded,
                   // outlier_scratch_floats() for linear_int8
};

// linear_expanded: 256 k of up to 2 panels as floats, and the running sums of up to 256 tokens.
inline constexpr int kExpandedK = 256;
inline constexpr int kExpandedTokens = 256;
inline constexpr int64_t kExpandedScratchFloats = int64_t{2} * kPanelRows * (kExpandedK + kExpandedTokens);

// linear_int8: the panels of a tile as floats, which many outliers are multiplied with. A weight with more columns
// would push the activations out of the cache; its columns are expanded one by one.
inline constexpr int kOutlierPanels = 2;
inline constexpr int64_t kMaxOutlierCols = 4096;
constexpr int64_t outlier_panel_floats(int64_t cols) { return round_up(cols, kExpandedK) * kPanelRows; }
constexpr int64_t outlier_scratch_floats(int64_t cols) {
  return cols <= kMaxOutlierCols ? kOutlierPanels * outlier_panel_floats(cols) : 0;
}

using LinearFn = void (*)(const LinearTask&);

}  // namespace turbomind::cpu
