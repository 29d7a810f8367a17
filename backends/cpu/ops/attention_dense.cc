// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/attention.h"
#include "ops.h"
#include "ops/row_loop.h"
#include "ops/workspace.h"
#include "plan.h"

namespace turbomind::cpu {
namespace {

int64_t num_blocks(int64_t positions) { return (positions + kSpanPositions - 1) / kSpanPositions; }

// The keys and values of one head, in the form of a paged context of blocks of kSpanPositions, so that its kernels
// serve.
struct DenseScratch {
  float* blocks;
  int32_t* block_table;  // 0, 1, 2, ...
  AttentionScratch scratch;
  AttentionState total;
  AttentionState part;
};

AttentionState take_state(WorkspaceArena& arena, int64_t dim_v) {
  return {arena.take<float>(kMaxTileRows), arena.take<float>(kMaxTileRows),
          arena.take<float>(kMaxTileRows * padded_dim(dim_v))};
}

DenseScratch take_scratch(WorkspaceArena& arena, int64_t positions, int64_t dim_k, int64_t dim_v) {
  DenseScratch scratch;
  scratch.blocks = arena.take<float>(num_blocks(positions) * kSpanPositions * (dim_k + dim_v));
  scratch.block_table = arena.take<int32_t>(num_blocks(positions));
  scratch.scratch.q = arena.take<float>(kMaxTileRows * dim_k);
  scratch.scratch.k = arena.take<float>(dim_k * kSpanPositions);
  scratch.scratch.v = arena.take<float>(kSpanPositions * padded_dim(dim_v));
  scratch.scratch.scores = arena.take<float>(kMaxTileRows * kSpanPositions);
  scratch.total = take_state(arena, dim_v);
  scratch.part = take_state(arena, dim_v);
  return scratch;
}

// Copies one head's keys and values of a sequence into the scratch blocks.
KvHeadView fill_blocks(const DenseScratch& scratch, const Rows& k, const Rows& v, int64_t begin, int64_t length,
                       int64_t kv_head) {
  const int64_t block_floats = kSpanPositions * (k.cols + v.cols);
  for (int64_t p = 0; p < length; ++p) {
    float* block = scratch.blocks + p / kSpanPositions * block_floats;
    const int64_t place = p % kSpanPositions;
    const float* key = k.row((begin + p) * k.inner + kv_head);
    for (int64_t d = 0; d < k.cols; ++d) block[d * kSpanPositions + place] = key[d];
    std::memcpy(block + k.cols * kSpanPositions + place * v.cols, v.row((begin + p) * v.inner + kv_head),
                static_cast<size_t>(v.cols) * sizeof(float));
  }
  for (int64_t i = 0; i < num_blocks(length); ++i) scratch.block_table[i] = static_cast<int32_t>(i);
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  return {.pool = reinterpret_cast<const uint8_t*>(scratch.blocks),
          .block_table = scratch.block_table,
          .block_bytes = block_floats * kFloat,
          .v_offset = kSpanPositions * k.cols * kFloat,
          .scale_offset = 0,
          .block_size = kSpanPositions,
          .dim_k = k.cols,
          .dim_v = v.cols,
          .dtype = TM_F32};
}

}  // namespace

void CpuOps::attention_dense(Stream& stream, const tm_attention_dense_args& args, const tm_workspace& workspace) {
  const Plan& plan = *abi::as<const Plan>(args.plan);
  const Rows q = rows_arg(args.q, "q");
  const Rows k = rows_arg(args.k, "k");
  const Rows v = rows_arg(args.v, "v");
  const Rows out = rows_arg(args.out, "out");
  const int64_t group = q.inner / k.inner;
  const AttentionKernels& kernels = stream.kernels().attention;
  WorkspaceArena arena(workspace);
  std::vector<DenseScratch> scratches;
  for (int thread = 0; thread < stream.pool().num_threads(); ++thread) {
    scratches.push_back(take_scratch(arena, q.outer, q.cols, v.cols));
  }
  stream.pool().parallel_for(plan.num_seqs() * q.inner, [&](int64_t task, int thread) {
    const int64_t begin = plan.cu_seqlens_q()[task / q.inner];
    const int64_t length = plan.cu_seqlens_q()[task / q.inner + 1] - begin;
    if (length == 0) return;
    const int64_t head = task % q.inner;
    const DenseScratch& own = scratches[thread];
    AttentionTile tile{.q = nullptr,
                       .q_row_stride = q.outer_stride,
                       .q_head_stride = 0,
                       .rows = 0,
                       .heads = 1,
                       .position = 0,
                       .context = length,
                       .window = 0,
                       .scale = args.scale,
                       .softcap = 0.0f,
                       .kv = fill_blocks(own, k, v, begin, length, head / group)};
    for (int64_t row = 0; row < length; row += kMaxTileRows) {
      tile.rows = static_cast<int>(std::min<int64_t>(kMaxTileRows, length - row));
      tile.q = q.row((begin + row) * q.inner + head);
      kernels.load_queries(tile, own.scratch);
      kernels.attend_split(tile, 0, own.scratch, own.total);
      for (int64_t split = 1; split * kSplitPositions < length; ++split) {
        kernels.attend_split(tile, split, own.scratch, own.part);
        kernels.merge(tile.rows, v.cols, own.total, own.part);
      }
      for (int r = 0; r < tile.rows; ++r) {
        kernels.finish_row(own.total.max[r], own.total.sum[r], own.total.acc + r * padded_dim(v.cols), nullptr, v.cols,
                           out.row((begin + row + r) * out.inner + head));
      }
    }
  });
}

size_t CpuOps::attention_dense_workspace(Context& context, const tm_attention_dense_args& args) {
  WorkspaceArena arena;
  for (int thread = 0; thread < context.pool().num_threads(); ++thread) {
    take_scratch(arena, args.q.shape[0], args.q.shape[2], args.v.shape[2]);
  }
  return arena.used();
}

}  // namespace turbomind::cpu
