// SPDX-License-Identifier: Apache-2.0
//
// Products of bfloat16 matrices on the matrix unit, in blocks of up to 32 rows x 2 panels of 16 columns, summed in
// float32. Rows come in steps of 32 k, [k / 32][rows][32], so that a tile is 1 KiB that lies together. A panel is pairs
// of k by 16 columns, as panels.h has it and as the instruction wants its second operand. A row's products are added 32
// k at a time in ascending order, whatever the other rows are.
#pragma once

#include "kernels/amx.h"
#include "kernels/panels.h"
#include "kernels/round_bf16.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

constexpr int kHalfRows = 16;  // of a tile
constexpr int kBlockRows = 2 * kHalfRows;
constexpr int kBlockPanels = 2;
constexpr int kBlockCols = kBlockPanels * kPanelRows;
constexpr int kStepBytes = kStepK / 2 * kVectorBytes;  // of a panel

// Tiles: sums of (half of the rows, panel) 0 (0, 0), 1 (0, 1), 2 (1, 0), 3 (1, 1); rows 4, 5; panels 6, 7.
TM_INLINE void configure_block(int rows) {
  const int halves[2] = {rows < kHalfRows ? rows : kHalfRows, rows > kHalfRows ? rows - kHalfRows : 1};
  TileShapes shapes;
  for (int half = 0; half < 2; ++half) {
    shapes.set(2 * half, halves[half], kVectorBytes);
    shapes.set(2 * half + 1, halves[half], kVectorBytes);
    shapes.set(4 + half, halves[half], kStepK * 2);
    shapes.set(6 + half, kStepK / 2, kVectorBytes);
  }
  configure_tiles(shapes);
}

template <int kSums, int kRows, int kPanel>
TM_INLINE void multiply_bf16_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kRows), "i"(kPanel));
}

template <bool kBothHalves>
TM_INLINE void zero_sums() {
  zero_tile<0>();
  zero_tile<1>();
  if constexpr (kBothHalves) {
    zero_tile<2>();
    zero_tile<3>();
  }
}

template <bool kBothHalves>
TM_INLINE void add_step(const uint16_t* rows, const uint8_t* first, const uint8_t* second) {
  constexpr int kRowBytes = kStepK * sizeof(uint16_t);
  load_tile<4>(rows, kRowBytes);
  load_tile<6>(first, kVectorBytes);
  multiply_bf16_tiles<0, 4, 6>();
  load_tile<7>(second, kVectorBytes);
  multiply_bf16_tiles<1, 4, 7>();
  if constexpr (kBothHalves) {
    load_tile<5>(rows + kHalfRows * kStepK, kRowBytes);
    multiply_bf16_tiles<2, 5, 6>();
    multiply_bf16_tiles<3, 5, 7>();
  }
}

// sums: [rows][kBlockCols], `stride` elements apart.
TM_INLINE void load_sums(const float* sums, int64_t stride) {
  const int64_t bytes = stride * static_cast<int64_t>(sizeof(float));
  load_tile<0>(sums, bytes);
  load_tile<1>(sums + kPanelRows, bytes);
  load_tile<2>(sums + kHalfRows * stride, bytes);
  load_tile<3>(sums + kHalfRows * stride + kPanelRows, bytes);
}

template <bool kBothHalves>
TM_INLINE void store_sums(float* sums, int64_t stride) {
  const int64_t bytes = stride * static_cast<int64_t>(sizeof(float));
  store_tile_rows<0>(sums, bytes);
  store_tile_rows<1>(sums + kPanelRows, bytes);
  if constexpr (kBothHalves) {
    store_tile_rows<2>(sums + kHalfRows * stride, bytes);
    store_tile_rows<3>(sums + kHalfRows * stride + kPanelRows, bytes);
  }
}

// sums: [kBlockRows][kBlockCols], `stride` elements apart; added to if `resume`. rows: [steps][kBlockRows][kStepK].
TM_INLINE void multiply_block(const uint16_t* rows, const uint8_t* first, const uint8_t* second, int64_t steps,
                              bool resume, float* sums, int64_t stride) {
  if (resume) {
    load_sums(sums, stride);
  } else {
    zero_sums<true>();
  }
  for (int64_t step = 0; step < steps; ++step) {
    add_step<true>(rows + step * kBlockRows * kStepK, first + step * kStepBytes, second + step * kStepBytes);
  }
  store_sums<true>(sums, stride);
}

TM_INLINE void begin_products() { configure_block(kBlockRows); }
TM_INLINE void end_products() { release_tiles(); }

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
