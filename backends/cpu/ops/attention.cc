// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "ops.h"
#include "ops/kv_view.h"
#include "ops/tensor_args.h"
#include "ops/workspace.h"
#include "plan.h"

namespace turbomind::cpu {
namespace {

// A step of few, long rows leaves threads idle unless the splits of one tile are shared among them.
constexpr int64_t kMaxSharedRows = 8;

struct Shape {
  int64_t q_heads;
  int64_t kv_heads;
  int64_t group;  // query heads per kv head
  int64_t tile_rows;
  int64_t dim_k;
  int64_t dim_v;
};

Shape shape_of(const tm_attention_args& args) {
  Shape shape;
  shape.q_heads = args.q.shape[1];
  shape.kv_heads = args.kv.spec.num_kv_heads;
  shape.group = shape.q_heads / shape.kv_heads;
  shape.tile_rows = std::max<int64_t>(1, kMaxTileRows / shape.group);
  shape.dim_k = args.kv.spec.head_dim_k;
  shape.dim_v = args.kv.spec.head_dim_v;
  require(shape.group * shape.kv_heads == shape.q_heads && shape.group <= kMaxTileRows, "q",
          "a multiple of " + std::to_string(shape.kv_heads) + " heads, at most " + std::to_string(kMaxTileRows) +
              " per kv head, found " + std::to_string(shape.q_heads));
  return shape;
}

// A tile's place in the step; splits [first_split, first_split + num_splits) of its context are visible.
struct TileTask {
  int64_t seq;
  int64_t row;  // of the call
  int64_t rows;
  int64_t kv_head;
  int64_t position;
  int64_t first_split;
  int64_t num_splits;
};

struct ThreadScratch {
  AttentionScratch scratch;
  AttentionState total;
  AttentionState part;
};

AttentionState take_state(WorkspaceArena& arena, int64_t rows, int64_t dim_v) {
  return {arena.take<float>(rows), arena.take<float>(rows), arena.take<float>(rows * padded_dim(dim_v))};
}

ThreadScratch take_thread_scratch(WorkspaceArena& arena, const Shape& shape) {
  ThreadScratch scratch;
  scratch.scratch.q = arena.take<float>(kMaxTileRows * shape.dim_k);
  scratch.scratch.k = arena.take<float>(shape.dim_k * kSpanPositions);
  scratch.scratch.v = arena.take<float>(kSpanPositions * padded_dim(shape.dim_v));
  scratch.scratch.scores = arena.take<float>(kMaxTileRows * kSpanPositions);
  scratch.total = take_state(arena, kMaxTileRows, shape.dim_v);
  scratch.part = take_state(arena, kMaxTileRows, shape.dim_v);
  return scratch;
}

int64_t max_splits(const tm_plan_limits& limits) {
  return limits.max_blocks_per_seq * limits.block_size / kSplitPositions + 1;
}

std::vector<TileTask> make_tasks(const tm_attention_args& args, const Plan& plan, const Shape& shape) {
  std::vector<TileTask> tasks;
  for (int64_t seq = 0; seq < plan.num_seqs(); ++seq) {
    const int64_t end = plan.cu_seqlens_q()[seq + 1];
    for (int64_t row = plan.cu_seqlens_q()[seq]; row < end; row += shape.tile_rows) {
      TileTask task{.seq = seq,
                    .row = row,
                    .rows = std::min(shape.tile_rows, end - row),
                    .kv_head = 0,
                    .position = plan.position(seq, row),
                    .first_split = 0,
                    .num_splits = 0};
      const int64_t first = args.window > 0 ? std::max<int64_t>(0, task.position - args.window + 1) : 0;
      task.first_split = first / kSplitPositions;
      task.num_splits = (task.position + task.rows - 1) / kSplitPositions - task.first_split + 1;
      for (task.kv_head = 0; task.kv_head < shape.kv_heads; ++task.kv_head) tasks.push_back(task);
    }
  }
  return tasks;
}

class AttentionCall {
 public:
  AttentionCall(Stream& stream, const tm_attention_args& args, const tm_workspace& workspace)
      : stream_(stream),
        kernels_(stream.kernels().attention),
        args_(args),
        plan_(*abi::as<const Plan>(args.plan)),
        shape_(shape_of(args)),
        arena_(workspace),
        sinks_(vector_arg<float>(args.sinks, "sinks")) {
    require_dtype<float>(args.q, "q");
    require_dtype<float>(args.out, "out");
    for (int thread = 0; thread < stream.pool().num_threads(); ++thread) {
      scratch_.push_back(take_thread_scratch(arena_, shape_));
    }
    tasks_ = make_tasks(args, plan_, shape_);
  }

  void run() {
    int64_t splits = 0;
    for (const TileTask& task : tasks_) splits += task.num_splits;
    const int64_t num_tasks = static_cast<int64_t>(tasks_.size());
    if (plan_.num_tokens() <= kMaxSharedRows && splits > num_tasks) {
      run_shared(splits);
    } else {
      // The last tiles of a sequence see most: starting with them evens out the threads.
      stream_.pool().parallel_for(num_tasks,
                                  [&](int64_t i, int thread) { run_tile(tasks_[num_tasks - 1 - i], thread); });
    }
    clear_padding();
  }

 private:
  AttentionTile tile_of(const TileTask& task) const {
    const tm_tensor& q = args_.q;
    AttentionTile tile{
        .q = static_cast<const float*>(q.data) + task.row * q.stride[0] + task.kv_head * shape_.group * q.stride[1],
        .q_row_stride = q.stride[0],
        .q_head_stride = q.stride[1],
        .rows = static_cast<int>(task.rows),
        .heads = static_cast<int>(shape_.group),
        .position = task.position,
        .context = 0,
        .window = args_.window,
        .scale = args_.scale,
        .softcap = args_.softcap,
        .kv = kv_head_view(args_.kv, task.kv_head)};
    tile.kv.block_table = plan_.block_table(task.seq);
    return tile;
  }

  void run_tile(const TileTask& task, int thread) {
    const ThreadScratch& scratch = scratch_[thread];
    const AttentionTile tile = tile_of(task);
    kernels_.load_queries(tile, scratch.scratch);
    kernels_.attend_split(tile, task.first_split, scratch.scratch, scratch.total);
    for (int64_t split = 1; split < task.num_splits; ++split) {
      kernels_.attend_split(tile, task.first_split + split, scratch.scratch, scratch.part);
      kernels_.merge(tile.rows * tile.heads, shape_.dim_v, scratch.total, scratch.part);
    }
    finish(task, scratch.total);
  }

  // Every split is a task of its own; then each tile's are merged in the order run_tile() merges them.
  void run_shared(int64_t num_splits) {
    struct Split {
      const TileTask* task;
      int64_t split;
      AttentionState state;
    };
    std::vector<Split> splits;
    splits.reserve(static_cast<size_t>(num_splits));
    for (const TileTask& task : tasks_) {
      for (int64_t split = 0; split < task.num_splits; ++split) {
        splits.push_back({&task, task.first_split + split, take_state(arena_, task.rows * shape_.group, shape_.dim_v)});
      }
    }
    stream_.pool().parallel_for(num_splits, [&](int64_t i, int thread) {
      const AttentionTile tile = tile_of(*splits[i].task);
      kernels_.load_queries(tile, scratch_[thread].scratch);
      kernels_.attend_split(tile, splits[i].split, scratch_[thread].scratch, splits[i].state);
    });
    for (size_t i = 0; i < splits.size();) {
      const TileTask& task = *splits[i].task;
      const AttentionState& total = splits[i].state;
      for (int64_t part = 1; part < task.num_splits; ++part) {
        kernels_.merge(static_cast<int>(task.rows * shape_.group), shape_.dim_v, total, splits[i + part].state);
      }
      finish(task, total);
      i += task.num_splits;
    }
  }

  void finish(const TileTask& task, const AttentionState& state) const {
    const tm_tensor& out = args_.out;
    for (int64_t row = 0; row < task.rows * shape_.group; ++row) {
      const int64_t head = task.kv_head * shape_.group + row % shape_.group;
      float* to =
          static_cast<float*>(out.data) + (task.row + row / shape_.group) * out.stride[0] + head * out.stride[1];
      kernels_.finish_row(state.max[row], state.sum[row], state.acc + row * padded_dim(shape_.dim_v),
                          sinks_ ? sinks_ + head : nullptr, shape_.dim_v, to);
    }
  }

  void clear_padding() const {
    const tm_tensor& out = args_.out;
    for (int64_t row = plan_.num_tokens(); row < out.shape[0]; ++row) {
      for (int64_t head = 0; head < shape_.q_heads; ++head) {
        float* to = static_cast<float*>(out.data) + row * out.stride[0] + head * out.stride[1];
        std::fill_n(to, shape_.dim_v, 0.0f);
      }
    }
  }

  Stream& stream_;
  const AttentionKernels& kernels_;
  const tm_attention_args& args_;
  const Plan& plan_;
  const Shape shape_;
  WorkspaceArena arena_;
  const float* sinks_;
  std::vector<ThreadScratch> scratch_;
  std::vector<TileTask> tasks_;
};

}  // namespace

void CpuOps::attention(Stream& stream, const tm_attention_args& args, const tm_workspace& workspace) {
  if (args.q.shape[0] > 0) AttentionCall(stream, args, workspace).run();
}

size_t CpuOps::attention_workspace(Context& context, const tm_attention_args& args) {
  const Shape shape = shape_of(args);
  WorkspaceArena arena;
  for (int thread = 0; thread < context.pool().num_threads(); ++thread) take_thread_scratch(arena, shape);
  // Shared splits: at most kMaxSharedRows tiles of one row each, or fewer tiles of more rows.
  const int64_t splits = max_splits(abi::as<const Plan>(args.plan)->limits());
  for (int64_t i = 0; i < splits * kMaxSharedRows * shape.kv_heads; ++i) take_state(arena, shape.group, shape.dim_v);
  return arena.used();
}

}  // namespace turbomind::cpu
