// SPDX-License-Identifier: Apache-2.0
//
// Tiles of Intel AMX: shapes, loads and stores, as assembler, since GCC's intrinsics tell the compiler neither that a
// tile load reads memory nor that a configuration is 64 bytes long (so GCC 12 drops the stores to it).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

// Operand of ldtilecfg (Intel SDM, volume 1, chapter 18): shapes of the eight tiles.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  TM_INLINE void set(int tile, int tile_rows, int bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};

TM_INLINE void configure_tiles(const TileShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }
TM_INLINE void release_tiles() { asm volatile("tilerelease"); }

template <int kTile>
TM_INLINE void zero_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
template <int kTile>
TM_INLINE void load_tile(const void* data, ptrdiff_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(data), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
TM_INLINE void store_tile_rows(void* data, ptrdiff_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(data), "r"(stride), "i"(kTile) : "memory");
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
