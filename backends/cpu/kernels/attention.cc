// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention.h"

#include "kernels/attention_softmax.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr int kDirectRows = 2 * kGroupRows;  // up to here, keys and values are converted anew for each group of rows
static_assert(kChunkPositions % (kTileVecs * kLanes) == 0 && kAttentionPadding % kLanes == 0);
static_assert(kGroupRows * kChunkPositions + 2 * kChunkPositions <= kAttentionPadding * kChunkPositions);

TM_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
TM_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Calls fn(Count<n>{}) for n in [1, kMax].
template <int kValue>
struct Count {
  static constexpr int value = kValue;
};
template <int kMax, class Fn>
TM_INLINE void with_count(int n, Fn&& fn) {
  if constexpr (kMax > 1) {
    if (n < kMax) return with_count<kMax - 1>(n, fn);
  }
  fn(Count<kMax>{});
}

struct TileScratch {
  float* q;       // [rows][dim_k], scaled
  float* split;   // State of the split at hand
  float* total;   // State of the splits before it
  float* keys;    // [dim_k][kChunkPositions]
  float* values;  // [kChunkPositions][padded dim_v]
  float* scores;  // [kGroupRows][kChunkPositions]
  float* scales;  // [2][kChunkPositions]
};

TM_INLINE TileScratch cut_scratch(const AttentionTask& task) {
  const int64_t rows = int64_t{task.positions} * task.group;
  TileScratch scratch;
  scratch.q = task.scratch;
  scratch.split = scratch.q + rows * padded(task.dim_k);
  scratch.total = scratch.split + partial_floats(rows, task.dim_v);
  scratch.keys = scratch.total + partial_floats(rows, task.dim_v);
  scratch.values = scratch.keys + kChunkPositions * padded(task.dim_k);
  scratch.scores = scratch.values + kChunkPositions * padded(task.dim_v);
  scratch.scales = scratch.scores + kGroupRows * kChunkPositions;
  return scratch;
}

TM_INLINE void load_queries(const AttentionTask& task, float* out) {
  const Vec factor = set(task.softcap > 0 ? task.scale : task.scale * kLog2E);
  const int count = task.group * task.dim_k;
  for (int p = 0; p < task.positions; ++p, out += count) {
    const float* q = task.q + p * task.q_stride;
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) store(out + i, load(q + i) * factor);
    if (i < count) store(out + i, load(q + i, count - i) * factor, count - i);
  }
}

// What the row at a position sees of the chunk; begin == end if nothing.
TM_INLINE Visible visible_positions(const AttentionTask& task, int64_t position, int64_t chunk_begin) {
  int64_t end = task.causal ? position + 1 : task.length;
  for (const PositionSpan* span = task.spans_begin; span != task.spans_end; ++span) {
    if (span->begin <= position && position < span->end) end = span->end;
  }
  const int64_t begin = task.window > 0 ? larger(0, position - task.window + 1) : 0;
  Visible visible;
  visible.begin = static_cast<int>(smaller(larger(begin - chunk_begin, 0), kChunkPositions));
  visible.end = static_cast<int>(smaller(larger(end - chunk_begin, visible.begin), kChunkPositions));
  return visible;
}

// What the rows [first, first + count) of the tile see of a chunk.
struct GroupView {
  Visible rows[kGroupRows];
  Visible any;     // seen by at least one row
  Visible common;  // seen by all; empty if begin >= end
  bool whole;      // every row sees the whole chunk
};

TM_INLINE GroupView view_group(const AttentionTask& task, int64_t chunk_begin, int first, int count) {
  GroupView view;
  view.any = {kChunkPositions, 0};
  view.common = {0, kChunkPositions};
  for (int r = 0; r < count; ++r) {
    const Visible row = visible_positions(task, task.first_position + (first + r) / task.group, chunk_begin);
    view.rows[r] = row;
    view.common.begin = view.common.begin > row.begin ? view.common.begin : row.begin;
    view.common.end = view.common.end < row.end ? view.common.end : row.end;
    if (row.begin == row.end) continue;
    view.any.begin = view.any.begin < row.begin ? view.any.begin : row.begin;
    view.any.end = view.any.end > row.end ? view.any.end : row.end;
  }
  view.whole = view.common.begin == 0 && view.common.end == kChunkPositions;
  return view;
}

TM_INLINE GroupView whole_view() {
  GroupView view;
  for (Visible& row : view.rows) row = {0, kChunkPositions};
  view.any = view.common = {0, kChunkPositions};
  view.whole = true;
  return view;
}

// Rows [first, first + kRows) of the tile meet a chunk. Positions that only some of the rows see are added row by row,
// so that no row ever multiplies a value it does not see.
template <int kRows, class Key, class Value>
void run_rows(const AttentionTask& task, const TileScratch& scratch, const State& state, const Chunk<Key, Value>& chunk,
              const GroupView& view, int first) {
  if (view.any.begin >= view.any.end) return;
  const float* q = scratch.q + int64_t{first} * task.dim_k;
  for (int s = 0; s < chunk.num_segments; ++s) {
    score_segment<kRows>(chunk.segments[s], q, task.dim_k, task.dim_k, view.any, scratch.scores);
  }
  const int64_t stride = padded(task.dim_v);
  float* sums = state.sums + first * stride;
  const SoftmaxRows rows{kRows,
                         view.rows,
                         scratch.scores,
                         {sums, state.totals + first * kAttentionPadding, state.maxima + first},
                         chunk.key_scales,
                         chunk.value_scales};
  (view.whole ? softmax_rows<true> : softmax_rows<false>)(task, rows);
  const bool shared = view.common.begin < view.common.end;
  for (int s = 0; s < chunk.num_segments; ++s) {
    const Segment<Key, Value>& segment = chunk.segments[s];
    for (int r = 0; r < kRows && !view.whole; ++r) {
      const Visible before{view.rows[r].begin, shared ? view.common.begin : view.rows[r].end};
      add_segment<1>(segment, scratch.scores + r * kChunkPositions, before, task.dim_v, sums + r * stride, stride);
    }
    if (!shared) continue;
    add_segment<kRows>(segment, scratch.scores, view.common, task.dim_v, sums, stride);
    for (int r = 0; r < kRows && !view.whole; ++r) {
      const Visible after{view.common.end, view.rows[r].end};
      add_segment<1>(segment, scratch.scores + r * kChunkPositions, after, task.dim_v, sums + r * stride, stride);
    }
  }
}

template <class Key, class Value>
void run_chunk(const AttentionTask& task, const TileScratch& scratch, const State& state,
               const Chunk<Key, Value>& chunk, int64_t chunk_begin, bool whole) {
  const int rows = task.positions * task.group;
  const int groups = (rows + kGroupRows - 1) / kGroupRows;
  GroupView view = whole_view();
  for (int i = 0; i < groups; ++i) {
    const int first = rows * i / groups;
    const int count = rows * (i + 1) / groups - first;
    if (!whole) view = view_group(task, chunk_begin, first, count);
    with_count<kGroupRows>(count, [&](auto n) TM_INLINE_LAMBDA {
      run_rows<decltype(n)::value>(task, scratch, state, chunk, view, first);
    });
  }
}

// merged = (merged, next), both relative to the larger maximum.
TM_INLINE void merge_states(const State& merged, const State& next, int rows, int dim_v) {
  const auto merge = [](float* a, const float* b, int count, float factor_a, float factor_b) TM_INLINE_LAMBDA {
    for (int i = 0; i < count; i += kLanes) store(a + i, load(a + i) * set(factor_a) + load(b + i) * set(factor_b));
  };
  for (int r = 0; r < rows; ++r) {
    if (next.maxima[r] == -kInfinity) continue;  // nothing seen
    if (merged.maxima[r] == -kInfinity) set_row(merged.sums + r * padded(dim_v), dim_v, 0.0f);
    const float maximum = next.maxima[r] > merged.maxima[r] ? next.maxima[r] : merged.maxima[r];
    const float factor = exp2_nonpositive(merged.maxima[r] - maximum);
    const float next_factor = exp2_nonpositive(next.maxima[r] - maximum);
    merge(merged.sums + r * padded(dim_v), next.sums + r * padded(dim_v), dim_v, factor, next_factor);
    merge(merged.totals + r * kAttentionPadding, next.totals + r * kAttentionPadding, kAttentionPadding, factor,
          next_factor);
    merged.maxima[r] = maximum;
  }
}

// Of one row, whose lanes are added in the order of sum().
TM_INLINE float row_total(const float* totals) {
  Vec lanes = load(totals);
  for (int i = kLanes; i < kAttentionPadding; i += kLanes) lanes = lanes + load(totals + i);
  return sum(lanes);
}

// The sink takes part in the denominator only.
TM_INLINE float output_factor(float maximum, float total, const float* sink) {
  if (!sink) return 1.0f / total;
  const float scaled_sink = *sink * kLog2E;
  const float largest = scaled_sink > maximum ? scaled_sink : maximum;
  const float factor = exp2_nonpositive(maximum - largest);
  return factor / (total * factor + exp2_nonpositive(scaled_sink - largest));
}

TM_INLINE void write_rows(const AttentionTask& task, const State& state) {
  for (int p = 0; p < task.positions; ++p) {
    for (int g = 0; g < task.group; ++g) {
      const int r = p * task.group + g;
      const Vec factor = set(output_factor(state.maxima[r], row_total(state.totals + r * kAttentionPadding),
                                           task.sinks ? task.sinks + g : nullptr));
      const float* sums = state.sums + r * padded(task.dim_v);
      float* out = task.out + p * task.out_stride + int64_t{g} * task.dim_v;
      int d = 0;
      for (; d + kLanes <= task.dim_v; d += kLanes) store(out + d, load(sums + d) * factor);
      if (d < task.dim_v) store(out + d, load(sums + d) * factor, task.dim_v - d);
    }
  }
}

// The chunks of one split that some row of the tile sees.
template <class Source>
TM_INLINE void run_split(const AttentionTask& task, const Source& source, const TileScratch& scratch, int64_t split,
                         const State& state) {
  const int64_t last_position = task.first_position + task.positions - 1;
  clear(state, task.positions * task.group);
  for (int64_t begin = split * kSplitPositions; begin < (split + 1) * kSplitPositions; begin += kChunkPositions) {
    const Visible first = visible_positions(task, task.first_position, begin);
    const Visible last = visible_positions(task, last_position, begin);
    const Visible any{first.begin, last.end};
    if (any.begin >= any.end) continue;
    const bool whole = first.begin == 0 && last.begin == 0 && first.end == kChunkPositions;
    Chunk<typename Source::Key, typename Source::Value> chunk;
    source.locate(begin, any, chunk);
    if (task.positions * task.group <= kDirectRows && task.dim_v % kLanes == 0) {
      run_chunk(task, scratch, state, chunk, begin, whole);
    } else {
      Chunk<float, float> expanded;
      expand(chunk, task, any, scratch.keys, scratch.values, expanded);
      run_chunk(task, scratch, state, expanded, begin, whole);
    }
  }
}

template <class Source>
TM_INLINE void run(const AttentionTask& task, const Source& source, const TileScratch& scratch) {
  const int rows = task.positions * task.group;
  load_queries(task, scratch.q);
  if (task.partials) {
    const int64_t stride = partial_floats(rows, task.dim_v);
    for (int64_t split = task.split_begin; split < task.split_end; ++split) {
      float* partial = task.partials + (split - task.split_begin) * stride;
      run_split(task, source, scratch, split, make_state(partial, rows, task.dim_v));
    }
    return;
  }
  const State total = make_state(scratch.total, rows, task.dim_v);
  const State part = make_state(scratch.split, rows, task.dim_v);
  run_split(task, source, scratch, task.split_begin, total);
  for (int64_t split = task.split_begin + 1; split < task.split_end; ++split) {
    run_split(task, source, scratch, split, part);
    merge_states(total, part, rows, task.dim_v);
  }
  write_rows(task, total);
}

template <class T>
void run_paged(const AttentionTask& task) {
  const TileScratch scratch = cut_scratch(task);
  run(task, PagedSource<T>{task.paged, task.dim_v, scratch.scales}, scratch);
}

void run_dense(const AttentionTask& task) { run(task, DenseSource{task.dense}, cut_scratch(task)); }

void merge(const AttentionTask& task) {
  const int rows = task.positions * task.group;
  const int64_t stride = partial_floats(rows, task.dim_v);
  const State total = make_state(task.partials, rows, task.dim_v);
  for (int64_t split = 1; split < task.split_end - task.split_begin; ++split) {
    merge_states(total, make_state(task.partials + split * stride, rows, task.dim_v), rows, task.dim_v);
  }
  write_rows(task, total);
}

}  // namespace

void fill(AttentionKernels& kernels) {
  kernels.run_f32 = run_paged<float>;
  kernels.run_f16 = run_paged<F16>;
  kernels.run_bf16 = run_paged<Bf16>;
  kernels.run_int8 = run_paged<int8_t>;
  kernels.run_dense = run_dense;
  kernels.merge = merge;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
