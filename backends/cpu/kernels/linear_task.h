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

  float* scratch;  // kExpandedScratchFloats of this thread, 64-byte aligned; linear_expanded only
};

// linear_expanded: 256 k of up to 2 panels as floats, and the running sums of up to 256 tokens.
inline constexpr int kExpandedK = 256;
inline constexpr int kExpandedTokens = 256;
inline constexpr int64_t kExpandedScratchFloats = int64_t{2} * kPanelRows * (kExpandedK + kExpandedTokens);

using LinearFn = void (*)(const LinearTask&);

}  // namespace turbomind::cpu
