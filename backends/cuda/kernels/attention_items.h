// SPDX-License-Identifier: Apache-2.0
//
// Work lists of attention, made on the host when a plan is updated and read by the kernels from device memory.
#pragma once

#include <cstdint>

namespace turbomind::cuda {

// Query rows [first, first + positions) of a sequence over the part [kv_begin, kv_end) of its context; or one row each
// of some sequences in order, over a part of their contexts that is the same blocks and that all of them see.
struct AttentionItem {
  int32_t seq;    // the first one
  int32_t first;  // row inside the sequence
  int32_t positions;
  int32_t kv_begin;     // a multiple of kTileKeys
  int32_t kv_end;       // beyond what the rows may see: no limit
  int32_t partial_row;  // of the first position; -1: the item sees the whole context and writes the output
  int32_t seqs;         // 1, or as many as positions
};

// A row whose context was split: its partial results lie `step` partial rows apart.
struct MergeItem {
  int32_t row;
  int32_t partial_row;  // of the first split
  int32_t step;
  int32_t splits;
};

struct AttentionItems {
  const AttentionItem* items;  // [capacity]
  const int32_t* count;
  int32_t capacity;
};

struct MergeItems {
  const MergeItem* items;  // [capacity]
  const int32_t* count;
  int32_t capacity;
};

inline constexpr int kTileRows = 64;    // query rows (positions x heads) of a tile
inline constexpr int kTileKeys = 64;    // positions whose scores a tile computes at a time
inline constexpr int kDecodeRows = 16;  // query rows of a tile of decode

}  // namespace turbomind::cuda
