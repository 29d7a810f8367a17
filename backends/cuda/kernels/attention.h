// SPDX-License-Identifier: Apache-2.0
//
// The attention kernels. Which of them takes a call, and which rows of it, is decided in ops/attention.cc.
#pragma once

#include <cuda_runtime.h>

#include "kernels/attention_items.h"
#include "kernels/kv_layout.h"
#include "kernels/step_view.h"
#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

// Query rows, where their output goes, and what is done to their scores.
struct AttentionRows {
  const void* q;  // [rows, q_heads, dim_k]
  void* out;      // [rows, q_heads, dim_v]
  int64_t q_stride;
  int64_t out_stride;
  int64_t rows;  // with padding
  int32_t q_heads;
  int32_t kv_heads;
  int32_t dim_k;
  int32_t dim_v;
  float scale;
  int32_t window;      // 0: none
  float softcap;       // 0: none
  const float* sinks;  // f32 [q_heads]; nullptr: none
  tm_dtype dtype;
};

// Keys and values in plain tensors, [rows, kv_heads, dim]; every row sees all rows of its sequence.
struct DenseKv {
  const void* k;
  const void* v;
  int64_t k_stride;
  int64_t v_stride;
};

struct PagedKv {
  const std::byte* pool;
  KvLayout layout;
  tm_dtype dtype;
};

// Any dtypes and head sizes up to kMaxHeadDim: a warp per row and head, float32 arithmetic. A row's bits depend on its
// own context only. Padding rows become zeros.
void launch_attention_plain(cudaStream_t stream, const AttentionRows& rows, const PagedKv& kv, const StepView& step);
void launch_attention_plain(cudaStream_t stream, const AttentionRows& rows, const DenseKv& kv, const StepView& step);

// Results of splits of a context before they are merged: per partial row and head the sum of weighted values, the
// largest score (times log2 e) and the sum of weights.
struct Partials {
  float* values;  // [partial rows, q_heads, dim_v]
  float* maxima;  // [partial rows, q_heads]
  float* sums;    // likewise
};

// Whether tensor cores take the call: 16-bit activations, keys and values of the same dtype or int8, 16-byte rows.
bool tiles_take(const AttentionRows& rows, tm_dtype kv_dtype);
bool tiles_take(const AttentionRows& rows, const DenseKv& kv);

// Tiles of 64 rows, each a query position and head of one kv head, on mma.sync (sm_80 and newer). A row's bits depend
// on its own context and on how it is split only. Padding rows of the call become zeros.
struct TileCall {
  AttentionRows rows;
  StepView step;
  AttentionItems items;  // device
  int positions;         // most query positions of an item, at most kTileRows
  int num_sms;
  bool zero_padding;
  // Items have at most kDecodeRows rows and their keys are shared by the warps of a block. The order of a row's sums
  // is then another one than in tiles.
  bool splits_keys;
};
void launch_attention_tiles(cudaStream_t stream, const TileCall& call, const PagedKv& kv, const Partials& partials);
void launch_attention_tiles(cudaStream_t stream, const TileCall& call, const DenseKv& kv);

// Calls with splits_keys on the copy engine of sm_90 and newer: 16-bit dtypes, keys of the same, head sizes 64, 128,
// 256.
bool stream_takes(const AttentionRows& rows, const PagedKv& kv, int architecture);
void launch_attention_stream(cudaStream_t stream, const TileCall& call, const PagedKv& kv, const Partials& partials);

// Whether the tensor cores of sm_90 take the rows of longer sequences: 16-bit dtypes, head sizes 64, 128 or 256.
bool warpgroups_take(const AttentionRows& rows, tm_dtype kv_dtype, int architecture);

// Query heads of a kv head that share a tile of the warpgroups, so that short chunks fill it.
int warpgroup_heads(const AttentionRows& rows);

// Tiles of 128 rows, call.positions query positions by 128 / call.positions heads of one kv head, on wgmma. A row's
// bits depend on the tile it came in.
void launch_attention_warpgroups(cudaStream_t stream, const TileCall& call, const PagedKv& kv);

// Merges the splits of each row of `merges` into the output.
void launch_attention_merge(cudaStream_t stream, const AttentionRows& rows, const MergeItems& merges,
                            const Partials& partials);

}  // namespace turbomind::cuda
