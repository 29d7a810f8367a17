// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention.h"

#include "kernels/simd_math.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr int kTileRows = 6;  // rows and vectors of a register tile: 12 accumulators
constexpr int kTileVectors = 2;
constexpr float kInfinity = __builtin_inff();

TM_INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
TM_INLINE int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

// Positions [begin, end) of the context that some row of the tile sees, cut to one span.
struct SpanRange {
  int64_t start;  // of the span
  int64_t begin;
  int64_t end;
};

TM_INLINE int64_t first_visible(const AttentionTile& tile, int64_t position) {
  return tile.window > 0 ? max64(0, position - tile.window + 1) : 0;
}

TM_INLINE int64_t visible_end(const AttentionTile& tile, int64_t position) {
  return tile.context > 0 ? tile.context : position + 1;
}

// ---- paged context -> float32 scratch ----

template <class T>
TM_INLINE void load_block_k(const T* k, const float* scales, int64_t dim, int64_t block_size, float* out) {
  for (int64_t d = 0; d < dim; ++d) {
    for (int64_t p = 0; p < block_size; p += kLanes) {
      Vec v = load(k + d * block_size + p);
      if (scales) v = v * load(scales + p);
      store(out + d * kSpanPositions + p, v);
    }
  }
}

template <class T>
TM_INLINE void load_block_v(const T* v, const float* scales, int64_t rows, int64_t dim, float* out) {
  const int64_t stride = padded_dim(dim);
  for (int64_t p = 0; p < rows; ++p) {
    for (int64_t d = 0; d < dim; d += kLanes) {
      const int count = static_cast<int>(min64(kLanes, dim - d));
      Vec value = count == kLanes ? load(v + p * dim + d) : load(v + p * dim + d, count);
      if (scales) value = value * set(scales[p]);
      store(out + p * stride + d, value);
    }
  }
}

template <class T>
void load_span(const KvHeadView& kv, const SpanRange& range, const AttentionScratch& scratch) {
  const int64_t first = range.begin / kv.block_size;
  const int64_t last = (range.end - 1) / kv.block_size;
  for (int64_t block = first; block <= last; ++block) {
    const int64_t start = block * kv.block_size;
    const uint8_t* base = kv.pool + kv.block_table[block] * kv.block_bytes;
    const float* scales = nullptr;
    if (kv.dtype == TM_I8) scales = reinterpret_cast<const float*>(base + kv.scale_offset);
    const int64_t offset = start - range.start;
    load_block_k(reinterpret_cast<const T*>(base), scales, kv.dim_k, kv.block_size, scratch.k + offset);
    load_block_v(reinterpret_cast<const T*>(base + kv.v_offset), scales ? scales + kv.block_size : nullptr,
                 min64(kv.block_size, range.end - start), kv.dim_v, scratch.v + offset * padded_dim(kv.dim_v));
  }
}

void load_span(const KvHeadView& kv, const SpanRange& range, const AttentionScratch& scratch) {
  switch (kv.dtype) {
    case TM_BF16:
      return load_span<Bf16>(kv, range, scratch);
    case TM_F16:
      return load_span<F16>(kv, range, scratch);
    case TM_I8:
      return load_span<int8_t>(kv, range, scratch);
    default:
      return load_span<float>(kv, range, scratch);
  }
}

// ---- matrix products of a tile ----

// c[r][j] (+)= sum over k of a[r][k] * b[k][j], kRows rows, kTileVectors vectors of columns, k ascending.
template <int kRows, bool kAdd>
TM_INLINE void multiply_tile(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth,
                             float* c, int64_t c_stride) {
  Vec acc[kRows][kTileVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kTileVectors; ++j) acc[r][j] = kAdd ? load(c + r * c_stride + j * kLanes) : zero();
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec columns[kTileVectors];
    for (int j = 0; j < kTileVectors; ++j) columns[j] = load(b + k * b_stride + j * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec factor = set(a[r * a_stride + k]);
      for (int j = 0; j < kTileVectors; ++j) acc[r][j] = fma(factor, columns[j], acc[r][j]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kTileVectors; ++j) store(c + r * c_stride + j * kLanes, acc[r][j]);
  }
}

// The same for one vector of columns: what is left over.
template <bool kAdd>
TM_INLINE void multiply_column(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth,
                               float* c, int64_t c_stride, int rows) {
  for (int r = 0; r < rows; ++r) {
    Vec acc = kAdd ? load(c + r * c_stride) : zero();
    for (int64_t k = 0; k < depth; ++k) acc = fma(set(a[r * a_stride + k]), load(b + k * b_stride), acc);
    store(c + r * c_stride, acc);
  }
}

template <bool kAdd>
TM_INLINE void multiply_rows(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth,
                             float* c, int64_t c_stride, int rows) {
  switch (rows) {
    case 1:
      return multiply_tile<1, kAdd>(a, a_stride, b, b_stride, depth, c, c_stride);
    case 2:
      return multiply_tile<2, kAdd>(a, a_stride, b, b_stride, depth, c, c_stride);
    case 3:
      return multiply_tile<3, kAdd>(a, a_stride, b, b_stride, depth, c, c_stride);
    case 4:
      return multiply_tile<4, kAdd>(a, a_stride, b, b_stride, depth, c, c_stride);
    case 5:
      return multiply_tile<5, kAdd>(a, a_stride, b, b_stride, depth, c, c_stride);
    default:
      return multiply_tile<kTileRows, kAdd>(a, a_stride, b, b_stride, depth, c, c_stride);
  }
}

// columns: a multiple of kLanes.
template <bool kAdd>
void multiply(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth, int64_t columns,
              float* c, int64_t c_stride, int rows) {
  constexpr int64_t kColumns = kTileVectors * kLanes;
  int64_t j = 0;
  for (; j + kColumns <= columns; j += kColumns) {
    for (int r = 0; r < rows; r += kTileRows) {
      const int count = rows - r < kTileRows ? rows - r : kTileRows;
      multiply_rows<kAdd>(a + r * a_stride, a_stride, b + j, b_stride, depth, c + r * c_stride + j, c_stride, count);
    }
  }
  for (; j < columns; j += kLanes) multiply_column<kAdd>(a, a_stride, b + j, b_stride, depth, c + j, c_stride, rows);
}

// ---- softmax ----

TM_INLINE void scale_vector(float* x, int64_t count, float factor) {
  const Vec scale = set(factor);
  for (int64_t i = 0; i < count; i += kLanes) store(x + i, load(x + i) * scale);
}

// Turns a row of scores into weights exp(score - max), 0 where the row does not see; updates the row's state.
void softmax_row(const AttentionTile& tile, const SpanRange& range, int64_t position, float* scores, float& row_max,
                 float& row_sum, float* acc) {
  const int64_t low = max64(range.begin, first_visible(tile, position)) - range.start;
  const int64_t high = min64(range.end, visible_end(tile, position)) - range.start;
  if (low >= high) {
    for (int64_t i = 0; i < kSpanPositions; i += kLanes) store(scores + i, zero());
    return;
  }
  const Vec cap = set(tile.softcap);
  for (int64_t i = 0; tile.softcap > 0 && i < kSpanPositions; i += kLanes) {
    store(scores + i, cap * tanh(load(scores + i) / cap));
  }
  for (int64_t i = 0; i < low; ++i) scores[i] = -kInfinity;
  for (int64_t i = high; i < kSpanPositions; ++i) scores[i] = -kInfinity;
  Vec largest = set(row_max);
  for (int64_t i = 0; i < kSpanPositions; i += kLanes) largest = max(load(scores + i), largest);
  const float new_max = max_lane(largest);
  Vec total = zero();
  for (int64_t i = 0; i < kSpanPositions; i += kLanes) {
    const Vec weight = exp(load(scores + i) - set(new_max));
    store(scores + i, weight);
    total = total + weight;
  }
  float lanes[kLanes];
  store(lanes, exp(set(row_max - new_max)));
  row_sum = row_sum * lanes[0] + sum(total);
  if (lanes[0] != 1.0f) scale_vector(acc, padded_dim(tile.kv.dim_v), lanes[0]);
  row_max = new_max;
}

void attend_span(const AttentionTile& tile, const SpanRange& range, const AttentionScratch& scratch,
                 const AttentionState& state) {
  const int rows = tile.rows * tile.heads;
  const int64_t stride = padded_dim(tile.kv.dim_v);
  load_span(tile.kv, range, scratch);
  const int64_t first = (range.begin - range.start) / kLanes * kLanes;
  const int64_t last = (range.end - range.start + kLanes - 1) / kLanes * kLanes;
  multiply<false>(scratch.q, tile.kv.dim_k, scratch.k + first, kSpanPositions, tile.kv.dim_k, last - first,
                  scratch.scores + first, kSpanPositions, rows);
  for (int row = 0; row < rows; ++row) {
    softmax_row(tile, range, tile.position + row / tile.heads, scratch.scores + row * kSpanPositions, state.max[row],
                state.sum[row], state.acc + row * stride);
  }
  const int64_t skipped = range.begin - range.start;
  multiply<true>(scratch.scores + skipped, kSpanPositions, scratch.v + skipped * stride, stride,
                 range.end - range.begin, stride, state.acc, stride, rows);
}

void attend_split(const AttentionTile& tile, int64_t split, const AttentionScratch& scratch,
                  const AttentionState& state) {
  const int rows = tile.rows * tile.heads;
  const int64_t stride = padded_dim(tile.kv.dim_v);
  for (int row = 0; row < rows; ++row) {
    state.max[row] = -kInfinity;
    state.sum[row] = 0.0f;
  }
  __builtin_memset(state.acc, 0, static_cast<size_t>(rows * stride) * sizeof(float));
  const int64_t begin = max64(split * kSplitPositions, first_visible(tile, tile.position));
  const int64_t end = min64((split + 1) * kSplitPositions, visible_end(tile, tile.position + tile.rows - 1));
  for (int64_t start = begin / kSpanPositions * kSpanPositions; start < end; start += kSpanPositions) {
    attend_span(tile, {start, max64(start, begin), min64(start + kSpanPositions, end)}, scratch, state);
  }
}

void load_queries(const AttentionTile& tile, const AttentionScratch& scratch) {
  const Vec scale = set(tile.scale);
  for (int row = 0; row < tile.rows * tile.heads; ++row) {
    const float* q = tile.q + row / tile.heads * tile.q_row_stride + row % tile.heads * tile.q_head_stride;
    float* out = scratch.q + row * tile.kv.dim_k;
    for (int64_t d = 0; d < tile.kv.dim_k; d += kLanes) {
      const int count = static_cast<int>(min64(kLanes, tile.kv.dim_k - d));
      store(out + d, load(q + d, count) * scale, count);
    }
  }
}

void merge(int rows, int64_t dim_v, const AttentionState& total, const AttentionState& part) {
  const int64_t stride = padded_dim(dim_v);
  for (int row = 0; row < rows; ++row) {
    if (part.max[row] == -kInfinity) continue;
    const float new_max = total.max[row] > part.max[row] ? total.max[row] : part.max[row];
    float factors[2][kLanes];
    store(factors[0], exp(set(total.max[row] - new_max)));
    store(factors[1], exp(set(part.max[row] - new_max)));
    const float keep = factors[0][0];
    const float take = factors[1][0];
    total.sum[row] = total.sum[row] * keep + part.sum[row] * take;
    total.max[row] = new_max;
    float* acc = total.acc + row * stride;
    const float* other = part.acc + row * stride;
    for (int64_t d = 0; d < stride; d += kLanes) {
      store(acc + d, fma(load(other + d), set(take), load(acc + d) * set(keep)));
    }
  }
}

void finish_row(float max, float sum, const float* acc, const float* sink, int64_t dim_v, float* out) {
  float factor = 1.0f;
  if (sink) {
    const float new_max = max > *sink ? max : *sink;
    float lanes[2][kLanes];
    store(lanes[0], exp(set(max - new_max)));
    store(lanes[1], exp(set(*sink - new_max)));
    factor = lanes[0][0];
    sum = sum * factor + lanes[1][0];
  }
  const Vec scale = set(factor / sum);
  for (int64_t d = 0; d < dim_v; d += kLanes) {
    store(out + d, load(acc + d) * scale, static_cast<int>(min64(kLanes, dim_v - d)));
  }
}

}  // namespace

void fill(AttentionKernels& kernels) {
  kernels.load_queries = load_queries;
  kernels.attend_split = attend_split;
  kernels.merge = merge;
  kernels.finish_row = finish_row;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
