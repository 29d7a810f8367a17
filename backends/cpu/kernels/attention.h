// SPDX-License-Identifier: Apache-2.0
//
// Attention of a tile of rows that share one kv head: softmax with running statistics (Milakov & Gimelshein 2018,
// arXiv:1805.02867) over chunks of positions, the partial results of splits merged in order (Dao et al.,
// Flash-Decoding).
//
// A row's arithmetic depends on its own position only: chunks and splits begin at fixed absolute positions, a score is
// one chain of multiply-adds in order of the dimension, a value one chain in order of the position. So the bits are the
// same whatever tile, batch, chunk of prefill or thread the row came in.
#pragma once

#include <cstddef>
#include <cstdint>

namespace turbomind::cpu {

inline constexpr int kChunkPositions = 64;     // softmax statistics are updated once per chunk
inline constexpr int kSplitPositions = 256;    // what one thread may take of a decode row's context
inline constexpr int kAttentionTileRows = 96;  // rows = query positions x query heads of the kv head
inline constexpr int kAttentionPadding = 16;   // floats that arrays of scratch memory are padded to

// One kv head of a paged sequence: its part of block b begins at data + block_table[b] * block_bytes.
struct PagedContext {
  const std::byte* data;
  const int32_t* block_table;
  int64_t block_bytes;
  int64_t value_offset;  // bytes
  int64_t scale_offset;
  int block_size;
};

// One kv head of a sequence in plain tensors.
struct DenseContext {
  const float* keys;    // [dim_k][length], rows key_stride apart; readable up to the next multiple of kChunkPositions
  const float* values;  // [length][dim_v], rows value_stride apart
  int64_t key_stride;
  int64_t value_stride;
};

// Positions [begin, end) that see each other.
struct PositionSpan {
  int32_t begin;
  int32_t end;
};

struct AttentionTask {
  PagedContext paged;
  DenseContext dense;
  const float* q;  // [positions, group, dim_k], positions q_stride apart
  float* out;      // [positions, group, dim_v], positions out_stride apart
  int64_t q_stride;
  int64_t out_stride;
  int positions;
  int group;  // query heads of the kv head
  int dim_k;
  int dim_v;
  int64_t first_position;  // of the tile's first row
  int64_t length;          // of the context
  bool causal;
  int64_t window;                   // 0: unlimited
  const PositionSpan* spans_begin;  // at least those that rows of the tile lie in
  const PositionSpan* spans_end;
  float scale;
  float softcap;       // 0: none
  const float* sinks;  // [group]; nullptr: none
  int64_t split_begin;
  int64_t split_end;
  // nullptr: the splits are all the row has, and `out` is written. Else each split's statistics go here:
  // [splits][partial_floats], merged by `merge`.
  float* partials;
  float* scratch;  // attention_scratch_floats(), 64-byte aligned
};

constexpr int64_t padded(int64_t count) {
  return (count + kAttentionPadding - 1) / kAttentionPadding * kAttentionPadding;
}

// Sums [rows][padded(dim_v)], totals [rows][kAttentionPadding] and maxima [padded(rows)] of one split.
constexpr int64_t partial_floats(int64_t rows, int64_t dim_v) {
  return rows * (padded(dim_v) + kAttentionPadding) + padded(rows);
}

// Of a tile of `rows` rows.
constexpr int64_t attention_scratch_floats(int64_t rows, int64_t dim_k, int64_t dim_v) {
  return rows * padded(dim_k) + 2 * partial_floats(rows, dim_v) +
         kChunkPositions * (padded(dim_k) + padded(dim_v) + kAttentionPadding);
}

using AttentionFn = void (*)(const AttentionTask&);

struct AttentionKernels {
  AttentionFn run_f32;  // paged
  AttentionFn run_f16;
  AttentionFn run_bf16;
  AttentionFn run_int8;
  AttentionFn run_dense;
  AttentionFn merge;  // partials of [split_begin, split_end) -> out
};

}  // namespace turbomind::cpu
