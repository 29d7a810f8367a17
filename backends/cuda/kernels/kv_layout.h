// SPDX-License-Identifier: Apache-2.0
//
// Where the bytes of a KV pool lie. Block by block, inside a block head by head; one head of one block is
//
//   keys    a tile [block_size, head_dim_k]
//   values  a tile [block_size, head_dim_v]
//   scales  f32, keys' [block_size] then values' [block_size]; TM_I8 only
//
// A tile whose rows are whole multiples of 128 bytes of a 16-bit dtype lies as tensor cores read it from shared memory:
// in panels of 128 bytes of every row, where the 16-byte chunk c of row r stands at place c ^ (r % 8) (the 128-byte
// swizzle of the PTX ISA, "Shared Memory Matrix Layout"), so a tile is loaded by copying bytes in order. Other tiles
// are row-major.
#pragma once

#include <cstdint>

#include "turbomind/abi/tm_backend.h"

#ifdef __CUDACC__
#define TM_HOST_DEVICE __host__ __device__
#else
#define TM_HOST_DEVICE
#endif

namespace turbomind::cuda {

inline constexpr int kMaxHeadDim = 256;
inline constexpr int kHeadDimMultiple = 4;
inline constexpr int kPanelBytes = 128;
inline constexpr int kChunkBytes = 16;

// One head of one block: keys or values.
struct KvTile {
  int32_t rows;       // block_size
  int32_t row_bytes;  // head_dim * element size
  bool swizzled;

  TM_HOST_DEVICE int64_t bytes() const { return static_cast<int64_t>(rows) * row_bytes; }

  // Byte offset of byte `byte` of row `row`. Bytes of one 16-byte chunk stay together.
  TM_HOST_DEVICE int64_t offset(int row, int byte) const {
    if (!swizzled) return static_cast<int64_t>(row) * row_bytes + byte;
    const int panel = byte / kPanelBytes;
    const int chunk = byte % kPanelBytes / kChunkBytes;
    return static_cast<int64_t>(panel * rows + row) * kPanelBytes + (chunk ^ (row % 8)) * kChunkBytes +
           byte % kChunkBytes;
  }
};

struct KvLayout {
  int32_t num_heads;
  int32_t block_size;    // tokens
  int32_t element_size;  // bytes, as all below
  KvTile keys;
  KvTile values;
  int64_t value_offset;  // from the head's first byte
  int64_t scale_offset;
  int64_t head_bytes;
  int64_t block_bytes;

  TM_HOST_DEVICE int64_t head(int64_t block, int head) const { return block * block_bytes + head * head_bytes; }
};

// Throws abi::Error (TM_UNSUPPORTED) for a spec this backend does not offer.
KvLayout make_kv_layout(const tm_kv_spec& spec);

}  // namespace turbomind::cuda
