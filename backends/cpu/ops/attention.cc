// SPDX-License-Identifier: Apache-2.0
//
// Paged attention. A task is a tile of query positions of one sequence and one kv head; where those are too few to keep
// the threads busy, the contexts of decode rows are split as well, and the thread that ends a row's last split merges
// them.
#include "kernels/attention.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "kv_layout.h"
#include "ops.h"
#include "ops/heads.h"
#include "ops/workspace.h"
#include "plan.h"

namespace turbomind::cpu {
namespace {

constexpr int64_t kSerialProducts = int64_t{1} << 17;  // multiply-adds of a call, a few microseconds
constexpr int64_t kAttentionTasksPerThread = 4;
constexpr int64_t kMinTileRows = 6;

struct Sequence {
  int64_t first_task;
  int64_t split_slot;  // of its first kv head; -1: its context is not split
};

struct Scratch {
  Sequence* sequences;            // [max_seqs + 1]
  std::atomic<int32_t>* arrived;  // [slots]: splits done
  float* partials;                // [slots][max_splits][partial_floats]
  float* threads;                 // [num_threads][thread_floats]
  int64_t slots;
  int64_t slot_floats;
  int64_t thread_floats;
};

struct Call {
  Heads<const float> q;
  Heads<float> out;
  tm_kv_pool pool;
  KvLayout layout;
  const Plan& plan;
  float scale;
  int64_t window;
  float softcap;
  const float* sinks;
  AttentionFn run;
  AttentionFn merge;

  int64_t group() const { return q.heads / layout.num_heads; }
  int64_t first_position(int64_t seq) const { return plan.position(seq, plan.cu_seqlens_q()[seq]); }
  int64_t length(int64_t seq) const { return plan.cu_seqlens_q()[seq + 1] - plan.cu_seqlens_q()[seq]; }
};

int64_t tile_rows(int64_t group) { return std::max<int64_t>(kAttentionTileRows, group); }

Scratch take_scratch(WorkspaceArena& arena, int num_threads, const tm_plan_limits& limits, const tm_kv_spec& spec,
                     int64_t q_heads) {
  const int64_t group = q_heads / spec.num_kv_heads;
  const int64_t max_splits = limits.max_blocks_per_seq * limits.block_size / kSplitPositions + 1;
  Scratch scratch{};
  scratch.slots = num_threads > 1 ? kAttentionTasksPerThread * num_threads : 0;
  scratch.slot_floats = max_splits * partial_floats(group, spec.head_dim_v);
  scratch.thread_floats = attention_scratch_floats(tile_rows(group), spec.head_dim_k, spec.head_dim_v);
  scratch.sequences = arena.take<Sequence>(limits.max_seqs + 1);
  scratch.arrived = arena.take<std::atomic<int32_t>>(scratch.slots);
  scratch.partials = arena.take<float>(scratch.slots * scratch.slot_floats);
  scratch.threads = arena.take<float>(num_threads * scratch.thread_floats);
  return scratch;
}

AttentionFn kernel_for(const AttentionKernels& kernels, tm_dtype dtype) {
  switch (dtype) {
    case TM_F32:
      return kernels.run_f32;
    case TM_F16:
      return kernels.run_f16;
    case TM_BF16:
      return kernels.run_bf16;
    default:
      return kernels.run_int8;
  }
}

// Multiply-adds of the call.
int64_t count_products(const Call& call) {
  int64_t pairs = 0;
  for (int64_t seq = 0; seq < call.plan.num_seqs(); ++seq) {
    const int64_t context = call.plan.context_lens()[seq];
    pairs += call.length(seq) * (call.window > 0 ? std::min(call.window, context) : context);
  }
  return pairs * call.q.heads * (call.q.dim + call.out.dim);
}

struct SplitRange {
  int64_t begin;
  int64_t end;
};

// The last position that the row at a position sees.
int64_t last_seen(const Call& call, int64_t seq, int64_t position) {
  const PositionSpan* end = call.plan.spans_end(seq);
  const auto before = [](int64_t value, const PositionSpan& span) { return value < span.end; };
  const PositionSpan* found = std::upper_bound(call.plan.spans_begin(seq), end, position, before);
  return found != end && found->begin <= position ? found->end - 1 : position;
}

SplitRange visible_splits(const Call& call, int64_t seq, int64_t first_position, int64_t last_position) {
  const int64_t begin = call.window > 0 ? std::max<int64_t>(0, first_position - call.window + 1) : 0;
  return {begin / kSplitPositions, last_seen(call, seq, last_position) / kSplitPositions + 1};
}

// The cut of a call into tasks.
struct Schedule {
  int64_t tile_positions;
  int64_t num_tasks;
};

int64_t num_tiles(int64_t rows, int64_t tile_positions) { return (rows + tile_positions - 1) / tile_positions; }

int64_t count_tiles(const Call& call, int64_t tile_positions) {
  int64_t tiles = 0;
  for (int64_t seq = 0; seq < call.plan.num_seqs(); ++seq) tiles += num_tiles(call.length(seq), tile_positions);
  return tiles * call.layout.num_heads;
}

Schedule make_schedule(const Call& call, const Scratch& scratch, int64_t wanted_tasks) {
  Schedule schedule{std::max<int64_t>(1, kAttentionTileRows / call.group()), 0};
  while (schedule.tile_positions > 1 && schedule.tile_positions * call.group() >= 2 * kMinTileRows &&
         count_tiles(call, schedule.tile_positions) < wanted_tasks) {
    schedule.tile_positions /= 2;
  }
  const bool split = count_tiles(call, schedule.tile_positions) < std::min(wanted_tasks, scratch.slots);
  int64_t slot = 0;
  for (int64_t seq = 0; seq < call.plan.num_seqs(); ++seq) {
    const int64_t position = call.first_position(seq);
    const SplitRange splits = visible_splits(call, seq, position, position);
    const bool split_this = split && call.length(seq) == 1 && splits.end - splits.begin > 1;
    scratch.sequences[seq] = {schedule.num_tasks, split_this ? slot : -1};
    if (split_this) slot += call.layout.num_heads;
    const int64_t parts = split_this ? splits.end - splits.begin : num_tiles(call.length(seq), schedule.tile_positions);
    schedule.num_tasks += parts * call.layout.num_heads;
  }
  for (int64_t i = 0; i < slot; ++i) new (scratch.arrived + i) std::atomic<int32_t>(0);
  return schedule;
}

int64_t sequence_of_task(const Scratch& scratch, int64_t num_seqs, int64_t task) {
  const Sequence* begin = scratch.sequences;
  const auto before = [](int64_t value, const Sequence& sequence) { return value < sequence.first_task; };
  return std::upper_bound(begin, begin + num_seqs, task, before) - begin - 1;
}

AttentionTask make_task(const Call& call, int64_t seq, int64_t head, int64_t first, int64_t positions, float* scratch) {
  const int64_t row = call.plan.cu_seqlens_q()[seq] + first;
  AttentionTask task{};
  task.paged = {call.layout.head(call.pool, 0, head),
                call.plan.block_table(seq),
                call.layout.block_bytes,
                call.layout.value_offset,
                call.layout.scale_offset,
                static_cast<int>(call.layout.block_size)};
  task.q = call.q.head(row, head * call.group());
  task.out = call.out.head(row, head * call.group());
  task.q_stride = call.q.stride;
  task.out_stride = call.out.stride;
  task.positions = static_cast<int>(positions);
  task.group = static_cast<int>(call.group());
  task.dim_k = static_cast<int>(call.q.dim);
  task.dim_v = static_cast<int>(call.out.dim);
  task.first_position = call.first_position(seq) + first;
  task.length = call.plan.context_lens()[seq];
  task.causal = true;
  task.window = call.window;
  const auto before = [](const PositionSpan& span, int64_t position) { return span.end <= position; };
  task.spans_end = call.plan.spans_end(seq);
  task.spans_begin = std::lower_bound(call.plan.spans_begin(seq), task.spans_end, task.first_position, before);
  while (task.spans_end != task.spans_begin && task.spans_end[-1].begin >= task.first_position + positions) {
    --task.spans_end;
  }
  task.scale = call.scale;
  task.softcap = call.softcap;
  task.sinks = call.sinks ? call.sinks + head * call.group() : nullptr;
  task.scratch = scratch;
  return task;
}

// One split of a decode row; the last one to end merges.
void run_split(const Call& call, const Scratch& scratch, int64_t slot, SplitRange splits, int64_t split,
               AttentionTask task) {
  float* partials = scratch.partials + slot * scratch.slot_floats;
  task.split_begin = splits.begin + split;
  task.split_end = task.split_begin + 1;
  task.partials = partials + split * partial_floats(task.group, task.dim_v);
  call.run(task);
  if (scratch.arrived[slot].fetch_add(1, std::memory_order_acq_rel) + 1 != splits.end - splits.begin) return;
  task.split_begin = splits.begin;
  task.split_end = splits.end;
  task.partials = partials;
  call.merge(task);
}

void run_task(const Call& call, const Scratch& scratch, const Schedule& schedule, int64_t index, int thread) {
  const int64_t seq = sequence_of_task(scratch, call.plan.num_seqs(), index);
  const Sequence& sequence = scratch.sequences[seq];
  const int64_t head = (index - sequence.first_task) % call.layout.num_heads;
  const int64_t part = (index - sequence.first_task) / call.layout.num_heads;
  float* floats = scratch.threads + thread * scratch.thread_floats;
  if (sequence.split_slot >= 0) {
    const int64_t position = call.first_position(seq);
    return run_split(call, scratch, sequence.split_slot + head, visible_splits(call, seq, position, position), part,
                     make_task(call, seq, head, 0, 1, floats));
  }
  // The last tile sees most and comes first, so that the threads end together.
  const int64_t length = call.length(seq);
  const int64_t first = (num_tiles(length, schedule.tile_positions) - 1 - part) * schedule.tile_positions;
  const int64_t positions = std::min(schedule.tile_positions, length - first);
  AttentionTask task = make_task(call, seq, head, first, positions, floats);
  const SplitRange splits = visible_splits(call, seq, task.first_position, task.first_position + positions - 1);
  task.split_begin = splits.begin;
  task.split_end = splits.end;
  call.run(task);
}

Call make_call(Stream& stream, const tm_attention_args& args) {
  require(args.plan != nullptr, "plan", "a plan");
  Call call{heads_arg<const float>(args.q, "q"),
            heads_arg<float>(args.out, "out"),
            args.kv,
            KvLayout(args.kv.spec),
            *abi::as<const Plan>(args.plan),
            args.scale,
            args.window,
            args.softcap,
            vector_arg<float>(args.sinks, "sinks"),
            kernel_for(stream.kernels().attention, args.kv.spec.dtype),
            stream.kernels().attention.merge};
  require(call.plan.num_seqs() == 0 || call.plan.has_blocks(), "plan", "context_lens and block_table");
  require(call.plan.limits().block_size == args.kv.spec.block_size || call.plan.num_seqs() == 0, "plan",
          "the pool's block_size");
  require(call.q.dim == args.kv.spec.head_dim_k, "q", "head_dim_k elements per head");
  require(call.out.dim == args.kv.spec.head_dim_v, "out", "head_dim_v elements per head");
  require(call.q.heads % args.kv.spec.num_kv_heads == 0, "q", "a multiple of num_kv_heads heads");
  require(call.q.rows >= call.plan.num_tokens() && call.out.rows == call.q.rows, "q", "a row for each of the plan's");
  return call;
}

}  // namespace

size_t CpuOps::attention_workspace(Context& context, const tm_attention_args& args) {
  require(args.plan != nullptr, "plan", "a plan");
  WorkspaceArena arena;
  take_scratch(arena, context.pool().num_threads(), abi::as<const Plan>(args.plan)->limits(), args.kv.spec,
               args.q.shape[1]);
  return arena.used();
}

void CpuOps::attention(Stream& stream, const tm_attention_args& args, const tm_workspace& workspace) {
  const Call call = make_call(stream, args);
  for (int64_t row = call.plan.num_tokens(); row < call.out.rows; ++row) {
    std::fill_n(call.out.head(row, 0), call.out.heads * call.out.dim, 0.0f);
  }
  if (call.plan.num_tokens() == 0) return;
  WorkspaceArena arena(workspace);
  ThreadPool& pool = stream.pool();
  const Scratch scratch = take_scratch(arena, pool.num_threads(), call.plan.limits(), args.kv.spec, call.q.heads);
  const bool serial = pool.num_threads() == 1 || count_products(call) < kSerialProducts;
  const Schedule schedule = make_schedule(call, scratch, serial ? 0 : kAttentionTasksPerThread * pool.num_threads());
  const auto task = [&](int64_t index, int thread) { run_task(call, scratch, schedule, index, thread); };
  if (serial) {
    for (int64_t index = 0; index < schedule.num_tasks; ++index) task(index, 0);
  } else {
    pool.parallel_for(schedule.num_tasks, task);
  }
}

}  // namespace turbomind::cpu
