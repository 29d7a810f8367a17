// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention.h"

#include "kernels/simd_math.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

// A micro tile holds kGroupRows x kTileVecs running sums in registers.
constexpr int kGroupRows = 6;
#if defined(TM_ISA_AVX512)
constexpr int kTileVecs = 4;
#else
constexpr int kTileVecs = 2;
#endif
constexpr int kDirectRows = 2 * kGroupRows;  // up to here, keys and values are converted anew for each group of rows
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kInfinity = __builtin_inff();
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

// 2^x for x <= 0 (or NaN); 0 below -150. The polynomial is a minimax fit on [-1/2, 1/2], relative error 2e-9.
TM_INLINE Vec exp2_nonpositive(Vec x) {
  constexpr float kCoefficients[] = {1.0f,           0.69314718246f, 0.24022647738f, 0.05550332367f,
                                     0.00961843692f, 0.00133988750f, 0.000153533620f};
  const Vec bounded = max(set(-160.0f), x);  // keeps a NaN
  const Vec n = round(bounded);
  return scale_by_power(polynomial(bounded - n, kCoefficients), n);
}

TM_INLINE float exp2_nonpositive(float x) {
  float lanes[kLanes];
  store(lanes, exp2_nonpositive(set(x)));
  return lanes[0];
}

// ---- contexts: keys and values of the positions of one chunk ----

// Consecutive positions that lie together: keys [dim][stride], values [positions][stride].
template <class Key, class Value>
struct Segment {
  const Key* keys;
  const Value* values;
  int64_t key_stride;
  int64_t value_stride;
  int begin;  // in the chunk
  int end;
};

constexpr int kMaxSegments = kChunkPositions / 16;

// Positions [begin, end) of the chunk; end may be rounded up for keys, never for values.
struct Visible {
  int begin;
  int end;
};

template <class Key, class Value>
struct Chunk {
  Segment<Key, Value> segments[kMaxSegments];
  int num_segments;
  const float* key_scales;  // [kChunkPositions]; nullptr: 1
  const float* value_scales;
};

// Blocks of a chunk as they lie in the pool.
template <class T>
struct PagedSource {
  using Key = T;
  using Value = T;

  const PagedContext& context;
  int dim_v;
  float* scales;  // [2][kChunkPositions]

  TM_INLINE void locate(int64_t chunk_begin, Visible visible, Chunk<T, T>& chunk) const {
    chunk.num_segments = 0;
    chunk.key_scales = chunk.value_scales = nullptr;
    for (int begin = 0; begin < kChunkPositions; begin += context.block_size) {
      const int end = begin + context.block_size;
      if (end <= visible.begin || begin >= visible.end) continue;
      const int64_t block = context.block_table[(chunk_begin + begin) / context.block_size];
      const std::byte* head = context.data + block * context.block_bytes;
      chunk.segments[chunk.num_segments++] = {reinterpret_cast<const T*>(head),
                                              reinterpret_cast<const T*>(head + context.value_offset),
                                              context.block_size,
                                              dim_v,
                                              begin,
                                              end};
      if constexpr (sizeof(T) == 1) copy_scales(reinterpret_cast<const float*>(head + context.scale_offset), begin);
    }
    if constexpr (sizeof(T) == 1) {
      chunk.key_scales = scales;
      chunk.value_scales = scales + kChunkPositions;
    }
  }

  TM_INLINE void copy_scales(const float* stored, int begin) const {
    for (int i = 0; i < context.block_size; i += kLanes) {
      store(scales + begin + i, load(stored + i));
      store(scales + kChunkPositions + begin + i, load(stored + context.block_size + i));
    }
  }
};

struct DenseSource {
  using Key = float;
  using Value = float;

  const DenseContext& context;

  TM_INLINE void locate(int64_t chunk_begin, Visible, Chunk<float, float>& chunk) const {
    chunk.num_segments = 1;
    chunk.key_scales = chunk.value_scales = nullptr;
    chunk.segments[0] = {context.keys + chunk_begin,
                         context.values + chunk_begin * context.value_stride,
                         context.key_stride,
                         context.value_stride,
                         0,
                         kChunkPositions};
  }
};

// Copies the visible part of a chunk to float32 tiles: keys [dim_k][kChunkPositions], values [kChunkPositions][padded].
template <class Key, class Value>
TM_INLINE void expand_keys(const Segment<Key, Value>& segment, int dim, float* tile, int last) {
  const int end = segment.end < last ? segment.end : last;
  for (int i = segment.begin; i < end; i += kLanes) {
    const Key* in = segment.keys + (i - segment.begin);
    float* out = tile + i;
    for (int d = 0; d < dim; ++d, in += segment.key_stride, out += kChunkPositions) store(out, load(in));
  }
}

template <class Key, class Value>
TM_INLINE void expand_values(const Segment<Key, Value>& segment, int dim, float* tile, Visible visible) {
  const int begin = segment.begin > visible.begin ? segment.begin : visible.begin;
  const int end = segment.end < visible.end ? segment.end : visible.end;
  const Value* in = segment.values + (begin - segment.begin) * segment.value_stride;
  float* out = tile + begin * padded(dim);
  if (segment.value_stride == dim && padded(dim) == dim) {  // the rows lie together on both sides
    for (int64_t i = 0; i < int64_t{end - begin} * dim; i += kLanes) store(out + i, load(in + i));
    return;
  }
  for (int i = begin; i < end; ++i, in += segment.value_stride, out += padded(dim)) {
    int d = 0;
    for (; d + kLanes <= dim; d += kLanes) store(out + d, load(in + d));
    if (d < dim) store(out + d, load(in + d, dim - d));
  }
}

template <class Key, class Value>
TM_INLINE void expand(const Chunk<Key, Value>& chunk, const AttentionTask& task, Visible visible, float* keys,
                      float* values, Chunk<float, float>& out) {
  for (int s = 0; s < chunk.num_segments; ++s) {
    expand_keys(chunk.segments[s], task.dim_k, keys, visible.end);
    expand_values(chunk.segments[s], task.dim_v, values, visible);
  }
  out.segments[0] = {keys, values, kChunkPositions, padded(task.dim_v), 0, kChunkPositions};
  out.num_segments = 1;
  out.key_scales = chunk.key_scales;
  out.value_scales = chunk.value_scales;
}

// ---- micro tiles ----

// scores[r][0 .. kVecs * kLanes) = q[r] . keys
template <int kRows, int kVecs, class Key>
[[gnu::noinline]] void score_tile(const float* q, int64_t q_stride, int dim, const Key* keys, int64_t key_stride,
                                  float* scores) {
  Vec sums[kRows][kVecs];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) sums[r][v] = zero();
  }
  for (int d = 0; d < dim; ++d, keys += key_stride, ++q) {
    Vec key[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) key[v] = load(keys + v * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const Vec query = set(q[r * q_stride]);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) sums[r][v] = fma(query, key[v], sums[r][v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) store(scores + r * kChunkPositions + v * kLanes, sums[r][v]);
  }
}

// sums[r][0 .. kVecs * kLanes) += weights[r][0 .. count) . values
template <int kRows, int kVecs, class Value>
[[gnu::noinline]] void value_tile(const float* weights, int count, const Value* values, int64_t value_stride,
                                  float* sums, int64_t sum_stride) {
  Vec total[kRows][kVecs];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) total[r][v] = load(sums + r * sum_stride + v * kLanes);
  }
  for (int i = 0; i < count; ++i, values += value_stride, ++weights) {
    Vec value[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) value[v] = load(values + v * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = set(weights[r * kChunkPositions]);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) total[r][v] = fma(weight, value[v], total[r][v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) store(sums + r * sum_stride + v * kLanes, total[r][v]);
  }
}

// Scores of positions [visible.begin, visible.end) of a segment for kRows rows, in whole vectors.
template <int kRows, class Key, class Value>
void score_segment(const Segment<Key, Value>& segment, const float* q, int64_t q_stride, int dim, Visible visible,
                   float* scores) {
  constexpr int kWide = kTileVecs * kLanes;
  const int end = segment.end < visible.end ? segment.end : visible.end;
  int i = segment.begin > visible.begin ? segment.begin : visible.begin / kLanes * kLanes;
  while (i < end) {
    const Key* keys = segment.keys + (i - segment.begin);
    if (end - i > kWide / 2 && i + kWide <= segment.end) {
      score_tile<kRows, kTileVecs>(q, q_stride, dim, keys, segment.key_stride, scores + i);
      i += kWide;
    } else if (kTileVecs > 2 && end - i > kLanes && i + 2 * kLanes <= segment.end) {
      score_tile<kRows, 2>(q, q_stride, dim, keys, segment.key_stride, scores + i);
      i += 2 * kLanes;
    } else {
      score_tile<kRows, 1>(q, q_stride, dim, keys, segment.key_stride, scores + i);
      i += kLanes;
    }
  }
}

// Adds positions [visible.begin, visible.end) to the sums of kRows rows. Lanes past dim hold anything.
template <int kRows, class Key, class Value>
void add_segment(const Segment<Key, Value>& segment, const float* weights, Visible visible, int dim, float* sums,
                 int64_t sum_stride) {
  const int begin = segment.begin > visible.begin ? segment.begin : visible.begin;
  const int count = (segment.end < visible.end ? segment.end : visible.end) - begin;
  if (count <= 0) return;
  const Value* values = segment.values + (begin - segment.begin) * segment.value_stride;
  int d = 0;
  for (; d + kTileVecs * kLanes <= dim; d += kTileVecs * kLanes) {
    value_tile<kRows, kTileVecs>(weights + begin, count, values + d, segment.value_stride, sums + d, sum_stride);
  }
  for (; d < dim; d += kLanes) {
    value_tile<kRows, 1>(weights + begin, count, values + d, segment.value_stride, sums + d, sum_stride);
  }
}

// ---- softmax ----

// Running softmax of the rows of a tile, in the log2 domain.
struct State {
  float* sums;    // [rows][padded dim_v], weighted values
  float* totals;  // [rows][kAttentionPadding], of the weights, one per lane
  float* maxima;  // [rows]; -infinity: nothing seen yet
};

TM_INLINE State make_state(float* data, int rows, int dim_v) {
  float* totals = data + rows * padded(dim_v);
  return {data, totals, totals + rows * kAttentionPadding};
}

// Sums are set when a row first sees something.
TM_INLINE void clear(const State& state, int rows) {
  for (int64_t i = 0; i < rows * kAttentionPadding; i += kLanes) store(state.totals + i, zero());
  for (int64_t i = 0; i < rows; i += kLanes) store(state.maxima + i, set(-kInfinity));
}

TM_INLINE void set_row(float* row, int dim, float value) {
  for (int d = 0; d < dim; d += kLanes) store(row + d, set(value));
}

TM_INLINE void scale_row(float* row, int dim, float factor) {
  for (int d = 0; d < dim; d += kLanes) store(row + d, load(row + d) * set(factor));
}

// Calls fn(position) for the vectors of a chunk that hold visible positions, in order.
template <bool kWhole, class Fn>
TM_INLINE void for_visible(Visible visible, Fn&& fn) {
  if constexpr (kWhole) {
#pragma GCC unroll 16
    for (int i = 0; i < kChunkPositions; i += kLanes) fn(i);
  } else {
    for (int i = visible.begin / kLanes * kLanes; i < visible.end; i += kLanes) fn(i);
  }
}

// A few rows of a tile meet a chunk.
struct SoftmaxRows {
  int count;               // at most kGroupRows
  const Visible* visible;  // [count]
  float* scores;           // [count][kChunkPositions]; become the weights
  State state;             // of the first row
  const float* key_scales;
  const float* value_scales;
};

// Final scores of a row: scaled, capped, -infinity outside the visible positions. Returns the largest.
template <bool kWhole>
TM_INLINE float finish_scores(const AttentionTask& task, const SoftmaxRows& rows, Visible visible, float* scores) {
  if (rows.key_scales) {
    for_visible<kWhole>(
        visible, [&](int i) TM_INLINE_LAMBDA { store(scores + i, load(scores + i) * load(rows.key_scales + i)); });
  }
  if (task.softcap > 0) {
    const Vec inverse = set(1.0f / task.softcap);
    const Vec cap = set(task.softcap * kLog2E);
    for_visible<kWhole>(visible,
                        [&](int i) TM_INLINE_LAMBDA { store(scores + i, cap * tanh(load(scores + i) * inverse)); });
  }
  if constexpr (!kWhole) {
    for (int i = visible.begin / kLanes * kLanes; i < visible.begin; ++i) scores[i] = -kInfinity;
    for (int i = visible.end; i % kLanes != 0; ++i) scores[i] = -kInfinity;
  }
  Vec largest = set(-kInfinity);
  for_visible<kWhole>(visible, [&](int i) TM_INLINE_LAMBDA { largest = max(load(scores + i), largest); });
  return max_lane(largest);
}

// Scores become weights relative to `maximum`, and join the totals after those were corrected.
template <bool kWhole>
TM_INLINE void weigh_scores(const SoftmaxRows& rows, Visible visible, float maximum, float correction, float* scores,
                            float* totals) {
  Vec sums[kAttentionPadding / kLanes];
#pragma GCC unroll 4
  for (int j = 0; j < kAttentionPadding / kLanes; ++j) sums[j] = load(totals + j * kLanes) * set(correction);
  for_visible<kWhole>(visible, [&](int i) TM_INLINE_LAMBDA {
    const Vec weight = exp2_nonpositive(load(scores + i) - set(maximum));
    Vec& sum = sums[i / kLanes % (kAttentionPadding / kLanes)];
    sum = sum + weight;
    store(scores + i, weight);
  });
#pragma GCC unroll 4
  for (int j = 0; j < kAttentionPadding / kLanes; ++j) store(totals + j * kLanes, sums[j]);
  if (rows.value_scales) {
    for_visible<kWhole>(
        visible, [&](int i) TM_INLINE_LAMBDA { store(scores + i, load(scores + i) * load(rows.value_scales + i)); });
  }
}

// Weights of the rows, whose sums so far are brought to the rows' maxima. In passes over the rows, so that their chains
// of operations overlap.
template <bool kWhole>
[[gnu::noinline]] void softmax_rows(const AttentionTask& task, const SoftmaxRows& rows) {
  // Lanes past the rows stay as they are here: equal, and nothing is made of them.
  alignas(64) float largest[kAttentionPadding] = {};
  alignas(64) float before[kAttentionPadding] = {};
  alignas(64) float correction[kAttentionPadding];
  for (int r = 0; r < rows.count; ++r) {
    before[r] = largest[r] = rows.state.maxima[r];
    if (!kWhole && rows.visible[r].begin == rows.visible[r].end) continue;
    const float found = finish_scores<kWhole>(task, rows, rows.visible[r], rows.scores + r * kChunkPositions);
    largest[r] = found > before[r] ? found : before[r];
  }
  bool unchanged = true;
  for (int r = 0; r < kGroupRows; r += kLanes) {
    const Vec old = load(before + r);
    const Vec now = load(largest + r);
    unchanged = unchanged && all(equal(old, now));
    store(correction + r, exp2_nonpositive(old - now));
  }
  for (int r = 0; r < rows.count; ++r) {
    if (!kWhole && rows.visible[r].begin == rows.visible[r].end) continue;
    rows.state.maxima[r] = largest[r];
    weigh_scores<kWhole>(rows, rows.visible[r], largest[r], unchanged ? 1.0f : correction[r],
                         rows.scores + r * kChunkPositions, rows.state.totals + r * kAttentionPadding);
  }
  if (unchanged) return;
  for (int r = 0; r < rows.count; ++r) {
    if (!kWhole && rows.visible[r].begin == rows.visible[r].end) continue;
    float* sums = rows.state.sums + r * padded(task.dim_v);
    if (before[r] == -kInfinity) {
      set_row(sums, task.dim_v, 0.0f);
    } else {
      scale_row(sums, task.dim_v, correction[r]);
    }
  }
}

// ---- tiles ----

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
