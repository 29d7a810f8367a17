// SPDX-License-Identifier: Apache-2.0
//
// Non-causal attention inside each sequence: on the matrix unit where there is one and products may be rounded to
// bfloat16. Else keys are transposed once per call into the layout of the paged cache, whose kernel serves both.
#include <algorithm>
#include <cstddef>

#include "kernels/attention.h"
#include "kernels/attention_bf16.h"
#include "ops.h"
#include "ops/heads.h"
#include "ops/row_ranges.h"
#include "ops/workspace.h"
#include "plan.h"

namespace turbomind::cpu {
namespace {

constexpr int64_t kTransposeTokens = 32;

struct Scratch {
  float* keys;  // [kv_heads][dim][key_stride]
  int64_t key_stride;
  float* threads;  // [num_threads][thread_floats]
  int64_t thread_floats;
};

struct Bf16Scratch {
  std::byte* threads;  // [num_threads][thread_bytes]
  int64_t thread_bytes;
};

// Rows of a sequence in a task of the matrix unit.
constexpr int64_t kMinBf16Rows = 128;
constexpr int64_t kBf16TasksPerThread = 4;
int64_t most_bf16_rows(int64_t group) { return std::max(kBf16AttentionStep, kBf16TaskRows / group); }

bool uses_bf16(const Context& context, const tm_attention_dense_args& args) {
  constexpr size_t kEnd = offsetof(tm_attention_dense_args, product_dtype) + sizeof args.product_dtype;
  return args.struct_size >= kEnd && args.product_dtype == TM_BF16 && context.kernels().attention_bf16.run != nullptr;
}

Bf16Scratch take_bf16_scratch(WorkspaceArena& arena, int num_threads, int64_t tokens, int64_t group, int64_t dim,
                              int64_t dim_v) {
  const int64_t rows = std::min(tokens, most_bf16_rows(group));
  Bf16Scratch scratch{};
  scratch.thread_bytes = attention_bf16_shape(rows, group, tokens, dim, dim_v).bytes();
  scratch.threads = arena.take<std::byte>(num_threads * scratch.thread_bytes);
  return scratch;
}

Scratch take_scratch(WorkspaceArena& arena, int num_threads, int64_t tokens, int64_t group, int64_t kv_heads,
                     int64_t dim, int64_t dim_v) {
  Scratch scratch{};
  scratch.key_stride = tokens + kChunkPositions;  // the last chunk is read whole
  scratch.keys = arena.take<float>(kv_heads * dim * scratch.key_stride);
  scratch.thread_floats = attention_scratch_floats(std::max<int64_t>(kAttentionTileRows, group), dim, dim_v);
  scratch.threads = arena.take<float>(num_threads * scratch.thread_floats);
  return scratch;
}

// [tokens, kv_heads, dim] -> [kv_heads][dim][key_stride]
void transpose_keys(ThreadPool& pool, const Heads<const float>& k, const Scratch& scratch) {
  const int64_t blocks = (k.rows + kTransposeTokens - 1) / kTransposeTokens;
  for_row_ranges(pool, blocks, kTransposeTokens * k.heads * k.dim, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kTransposeTokens;
      const int64_t last = std::min(first + kTransposeTokens, k.rows);
      for (int64_t channel = 0; channel < k.heads * k.dim; ++channel) {
        float* out = scratch.keys + channel * scratch.key_stride;
        for (int64_t token = first; token < last; ++token) out[token] = k.data[token * k.stride + channel];
      }
    }
  });
}

struct Call {
  Heads<const float> q;
  Heads<const float> k;
  Heads<const float> v;
  Heads<float> out;
  const Plan& plan;
  float scale;

  int64_t group() const { return q.heads / k.heads; }
};

AttentionTask make_task(const Call& call, const Scratch& scratch, int64_t seq, int64_t head, int64_t first,
                        int64_t positions, int thread) {
  const int64_t begin = call.plan.cu_seqlens_q()[seq];
  AttentionTask task{};
  task.dense = {scratch.keys + head * call.k.dim * scratch.key_stride + begin, call.v.head(begin, head),
                scratch.key_stride, call.v.stride};
  task.q = call.q.head(begin + first, head * call.group());
  task.out = call.out.head(begin + first, head * call.group());
  task.q_stride = call.q.stride;
  task.out_stride = call.out.stride;
  task.positions = static_cast<int>(positions);
  task.group = static_cast<int>(call.group());
  task.dim_k = static_cast<int>(call.q.dim);
  task.dim_v = static_cast<int>(call.v.dim);
  task.first_position = first;
  task.length = call.plan.cu_seqlens_q()[seq + 1] - begin;
  task.scale = call.scale;
  task.split_end = (task.length + kSplitPositions - 1) / kSplitPositions;
  task.scratch = scratch.threads + thread * scratch.thread_floats;
  return task;
}

// Tiles of the sequence that holds tile `index` when sequences are cut one after the other.
struct Tile {
  int64_t seq;
  int64_t first;
  int64_t positions;
};

Tile find_tile(const Plan& plan, int64_t index, int64_t tile_positions) {
  const int32_t* cu = plan.cu_seqlens_q();
  int64_t seq = 0;
  for (;; ++seq) {
    const int64_t tiles = (cu[seq + 1] - cu[seq] + tile_positions - 1) / tile_positions;
    if (index < tiles) break;
    index -= tiles;
  }
  const int64_t first = index * tile_positions;
  return {seq, first, std::min<int64_t>(tile_positions, cu[seq + 1] - cu[seq] - first)};
}

int64_t count_tiles(const Plan& plan, int64_t tile_positions) {
  int64_t tiles = 0;
  for (int64_t seq = 0; seq < plan.num_seqs(); ++seq) {
    tiles += (plan.cu_seqlens_q()[seq + 1] - plan.cu_seqlens_q()[seq] + tile_positions - 1) / tile_positions;
  }
  return tiles;
}

Call make_call(const tm_attention_dense_args& args) {
  require(args.plan != nullptr, "plan", "a plan");
  const Call call{heads_arg<const float>(args.q, "q"), heads_arg<const float>(args.k, "k"),
                  heads_arg<const float>(args.v, "v"), heads_arg<float>(args.out, "out"),
                  *abi::as<const Plan>(args.plan),     args.scale};
  require(call.k.heads > 0 && call.q.heads % call.k.heads == 0, "q", "a multiple of k's heads");
  require(call.q.rows >= call.plan.num_tokens(), "q", "a row for each of the plan's");
  return call;
}

void run_bf16(Stream& stream, const Call& call, const Bf16Scratch& scratch) {
  ThreadPool& pool = stream.pool();
  int64_t rows = most_bf16_rows(call.group());
  while (rows > kMinBf16Rows &&
         count_tiles(call.plan, rows) * call.k.heads < kBf16TasksPerThread * pool.num_threads()) {
    rows /= 2;
  }
  pool.parallel_for(count_tiles(call.plan, rows) * call.k.heads, [&](int64_t index, int thread) {
    const Tile tile = find_tile(call.plan, index / call.k.heads, rows);
    const int64_t head = index % call.k.heads;
    const int64_t begin = call.plan.cu_seqlens_q()[tile.seq];
    AttentionBf16Task task{};
    task.q = call.q.head(begin + tile.first, head * call.group());
    task.k = call.k.head(begin, head);
    task.v = call.v.head(begin, head);
    task.out = call.out.head(begin + tile.first, head * call.group());
    task.q_stride = call.q.stride;
    task.k_stride = call.k.stride;
    task.v_stride = call.v.stride;
    task.out_stride = call.out.stride;
    task.rows = tile.positions;
    task.length = call.plan.cu_seqlens_q()[tile.seq + 1] - begin;
    task.group = static_cast<int>(call.group());
    task.dim_k = static_cast<int>(call.q.dim);
    task.dim_v = static_cast<int>(call.v.dim);
    task.scale = call.scale;
    task.scratch = scratch.threads + thread * scratch.thread_bytes;
    stream.kernels().attention_bf16.run(task);
  });
}

}  // namespace

size_t CpuOps::attention_dense_workspace(Context& context, const tm_attention_dense_args& args) {
  WorkspaceArena arena;
  const int num_threads = context.pool().num_threads();
  const int64_t kv_heads = std::max<int64_t>(1, args.k.shape[1]);
  const int64_t group = args.q.shape[1] / kv_heads;
  if (uses_bf16(context, args)) {
    take_bf16_scratch(arena, num_threads, args.q.shape[0], group, args.q.shape[2], args.v.shape[2]);
  } else {
    take_scratch(arena, num_threads, args.q.shape[0], group, kv_heads, args.q.shape[2], args.v.shape[2]);
  }
  return arena.used();
}

void CpuOps::attention_dense(Stream& stream, const tm_attention_dense_args& args, const tm_workspace& workspace) {
  const Call call = make_call(args);
  for (int64_t row = call.plan.num_tokens(); row < call.out.rows; ++row) {
    std::fill_n(call.out.head(row, 0), call.out.heads * call.out.dim, 0.0f);
  }
  if (call.plan.num_tokens() == 0) return;
  WorkspaceArena arena(workspace);
  const int num_threads = stream.pool().num_threads();
  if (uses_bf16(stream.context(), args)) {
    return run_bf16(stream, call,
                    take_bf16_scratch(arena, num_threads, call.q.rows, call.group(), call.q.dim, call.v.dim));
  }
  const Scratch scratch =
      take_scratch(arena, num_threads, call.q.rows, call.group(), call.k.heads, call.k.dim, call.v.dim);
  transpose_keys(stream.pool(), call.k, scratch);
  const int64_t tile_positions = std::max<int64_t>(1, kAttentionTileRows / call.group());
  const int64_t tiles = count_tiles(call.plan, tile_positions);
  stream.pool().parallel_for(tiles * call.k.heads, [&](int64_t index, int thread) {
    const Tile tile = find_tile(call.plan, index / call.k.heads, tile_positions);
    const int64_t head = index % call.k.heads;
    stream.kernels().attention.run_dense(make_task(call, scratch, tile.seq, head, tile.first, tile.positions, thread));
  });
}

}  // namespace turbomind::cpu
