// SPDX-License-Identifier: Apache-2.0
//
// Attention of a tile of query rows over one split of a paged context, by online softmax (Milakov & Gimelshein 2018,
// arXiv:1805.02867; Dao 2023, arXiv:2307.08691).
//
// Determinism: a context is cut at fixed absolute positions into splits of kSplitPositions, a split into spans of
// kSpanPositions. A row's arithmetic within a span does not depend on the tile it is computed in, every split starts
// from nothing, and splits are merged in ascending order. So a row's result depends on its own query and context only.
#pragma once

#include <cstdint>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cpu {

inline constexpr int64_t kSpanPositions = 128;
inline constexpr int64_t kSplitPositions = 512;
inline constexpr int kMaxTileRows = 48;       // query rows times heads that share a kv head
inline constexpr int64_t kDimAlignment = 16;  // rows of accumulators and of scratch V are padded to this

[[gnu::always_inline]] inline int64_t padded_dim(int64_t dim) {
  return (dim + kDimAlignment - 1) / kDimAlignment * kDimAlignment;
}

// One kv head of one sequence's paged context.
struct KvHeadView {
  const uint8_t* pool;         // of this head inside block 0
  const int32_t* block_table;  // of the sequence
  int64_t block_bytes;         // from one block to the next
  int64_t v_offset;            // bytes from a block's K ([head_dim_k, block_size]) to its V ([block_size, head_dim_v])
  int64_t scale_offset;        // bytes to the int8 scales of K, then of V, f32 [block_size] each
  int64_t block_size;
  int64_t dim_k;
  int64_t dim_v;
  tm_dtype dtype;
};

// A tile: `rows` consecutive query rows of one sequence with the `heads` query heads of one kv head. Tile row
// r * heads + h is query row r, head h.
struct AttentionTile {
  const float* q;        // first row and head
  int64_t q_row_stride;  // elements
  int64_t q_head_stride;
  int rows;
  int heads;
  int64_t position;  // of query row 0; row r stands at position + r
  int64_t context;   // 0: causal; else every row sees [0, context)
  int64_t window;    // 0: all
  float scale;
  float softcap;
  KvHeadView kv;
};

// Scratch of one thread.
struct AttentionScratch {
  float* q;       // [kMaxTileRows, dim_k], scaled
  float* k;       // [dim_k, kSpanPositions]
  float* v;       // [kSpanPositions, padded_dim(dim_v)]
  float* scores;  // [kMaxTileRows, kSpanPositions]
};

// Running softmax of each tile row.
struct AttentionState {
  float* max;  // [tile rows]; -infinity: nothing seen yet
  float* sum;  // [tile rows]
  float* acc;  // [tile rows, padded_dim(dim_v)]
};

struct AttentionKernels {
  // Packs the tile's queries into scratch.q.
  void (*load_queries)(const AttentionTile& tile, const AttentionScratch& scratch);
  // The tile over one split; overwrites state.
  void (*attend_split)(const AttentionTile& tile, int64_t split, const AttentionScratch& scratch,
                       const AttentionState& state);
  // total = total merged with part; rows tile rows.
  void (*merge)(int rows, int64_t dim_v, const AttentionState& total, const AttentionState& part);
  // out[d] = acc[d] / sum, with an optional sink logit in the denominator.
  void (*finish_row)(float max, float sum, const float* acc, const float* sink, int64_t dim_v, float* out);
};

}  // namespace turbomind::cpu
