// SPDX-License-Identifier: Apache-2.0
//
// From the work lists to what a block works on.
#pragma once

#include "kernels/attention_tiles.cuh"

namespace turbomind::cuda {

// Query heads of a kv head that fit a tile with `positions` query positions.
TM_HOST_DEVICE inline int heads_of_tile(int group, int positions) {
  const int fit = kTileRows / positions;
  return fit < 1 ? 1 : (fit < group ? fit : group);
}

// The least position of the tile's queries.
__device__ __forceinline__ int first_position(const Tile& tile) {
  if (!tile.contexts) return tile.position;
  int least = tile.contexts[0];
  for (int i = 1; i < tile.positions; ++i) least = min(least, tile.contexts[i]);
  return least - 1;
}

// Part `part` of the kv head's group of query heads, over the keys that an item names. False: there is no such part.
template <class Kv>
__device__ __forceinline__ bool make_tile(const AttentionRows& rows, const StepView& step, const AttentionItem& item,
                                          int kv_head, int part, Tile& tile) {
  const int group = rows.q_heads / rows.kv_heads;
  const int heads = heads_of_tile(group, item.positions);
  if (part * heads >= group) return false;
  const int begin = step.cu_seqlens_q[item.seq];
  const int end = step.cu_seqlens_q[item.seq + 1];
  tile.seq = item.seq;
  tile.token = begin + item.first;
  tile.positions = item.positions;
  tile.kv_head = kv_head;
  tile.head = kv_head * group + part * heads;
  tile.heads = min(heads, group - part * heads);
  tile.partial_row = item.partial_row;
  tile.row_end = step.row_end ? step.row_end + tile.token : nullptr;
  tile.contexts = item.seqs > 1 ? step.context_lens + item.seq : nullptr;
  if constexpr (std::is_same_v<Kv, PagedKv>) {
    tile.causal = true;
    tile.position = step.context_lens[item.seq] - (end - begin) + item.first;
    const int visible = rows.window > 0 ? max(0, first_position(tile) - rows.window + 1) : 0;
    tile.begin = max(visible, item.kv_begin);
    // No row sees farther than the last one.
    const int end_of_last = tile.row_end ? tile.row_end[item.positions - 1] : tile.position + item.positions;
    tile.end = min(end_of_last, item.kv_end);
  } else {
    tile.causal = false;
    tile.position = item.first;
    tile.begin = 0;
    tile.end = end - begin;
  }
  return true;
}

// By `blocks` blocks of at least kTileThreads, of which this is one.
template <class T>
__device__ void zero_padding_rows(const AttentionRows& rows, const StepView& step, int block, int blocks) {
  const int64_t columns = static_cast<int64_t>(rows.q_heads) * rows.dim_v;
  for (int64_t row = *step.num_tokens + static_cast<int64_t>(block); row < rows.rows; row += blocks) {
    T* out = static_cast<T*>(rows.out) + row * rows.out_stride;
    for (int64_t i = threadIdx.x; i < columns; i += kTileThreads) out[i] = from_float<T>(0.0f);
  }
}

}  // namespace turbomind::cuda
