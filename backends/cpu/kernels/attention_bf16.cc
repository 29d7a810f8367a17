// SPDX-License-Identifier: Apache-2.0
//
// Keys and values are packed a span of positions at a time; then blocks of 32 rows of queries pass over them. Positions
// past the sequence's end are zeros there, and get no weight.
#include "kernels/attention_bf16.h"

#if defined(TM_ISA_AMX)
#include "kernels/amx_bf16.h"
#else
#include "kernels/dot_bf16.h"
#endif

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kInfinity = __builtin_inff();
constexpr int kChunk = kBf16ChunkPositions;
static_assert(kBf16AttentionStep == kBlockRows && kBlockRows == kStepK && kStepK == kBlockCols && kChunk % kStepK == 0);

struct Scratch {
  AttentionBf16Shape shape;
  uint8_t* keys;
  uint8_t* values;
  uint16_t* queries;  // [dim_k / 32][32][32], scaled
  uint16_t* weights;  // [kChunk / 32][32][32]
  float* scores;      // [32][kChunk]
  float* sums;        // [rows][dim_v]
  float* maxima;      // [rows], of the running softmax, in the log2 domain
  float* totals;      // [rows]

  TM_INLINE explicit Scratch(const AttentionBf16Task& task)
      : shape(attention_bf16_shape(task.rows, task.group, task.length, task.dim_k, task.dim_v)),
        keys(reinterpret_cast<uint8_t*>(task.scratch)),
        values(keys + shape.keys()),
        queries(reinterpret_cast<uint16_t*>(values + shape.values())),
        weights(reinterpret_cast<uint16_t*>(values + shape.values() + shape.queries())),
        scores(reinterpret_cast<float*>(values + shape.values() + shape.queries() + shape.weights())),
        sums(scores + shape.scores() / 4),
        maxima(sums + shape.sums() / 4),
        totals(maxima + shape.statistics() / 4) {}

  TM_INLINE int64_t key_panel_bytes() const { return shape.dim_k * kPanelRows * 2; }
  TM_INLINE int64_t value_panel_bytes() const { return shape.span * kPanelRows * 2; }
};

// 32 rows of one head.
struct Block {
  int64_t first;  // row of the task
  int head;       // of the group
  float* sums;    // [32][dim_v]
  float* maxima;  // [32]
  float* totals;  // [32]
};

// Positions [begin, begin + count) of the sequence, of which the first `seen` are there; count is whole steps.
struct Positions {
  int64_t begin;
  int64_t count;
  int64_t seen;
};

TM_INLINE Positions positions_from(const AttentionBf16Task& task, int64_t begin, int64_t most) {
  const int64_t left = task.length - begin;
  const int64_t seen = left < most ? left : most;
  return {begin, round_up(seen, kStepK), seen};
}

void pack_keys(const AttentionBf16Task& task, const Scratch& scratch, const Positions& span) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i places = _mm512_slli_epi32(lanes, 4);  // a pair of k is 16 words of a panel
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t position = 0; position < span.count; ++position) {
    const float* key = task.k + (span.begin + position) * task.k_stride;
    const int64_t dim = position < span.seen ? task.dim_k : 0;
    uint8_t* out = scratch.keys + position / kPanelRows * scratch.key_panel_bytes() + position % kPanelRows * 4;
    for (int64_t d = 0; d < scratch.shape.dim_k; d += kStepK, out += kStepBytes) {
      _mm512_i32scatter_epi32(out, places, round_step(key, d, dim, one), 4);
    }
  }
}

void pack_values(const AttentionBf16Task& task, const Scratch& scratch, const Positions& span) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  // Of 32 bfloat16: elements i and i + 16 become neighbours.
  const __m512i interleave =
      _mm512_or_si512(lanes, _mm512_slli_epi32(_mm512_add_epi32(lanes, _mm512_set1_epi32(16)), 16));
  for (int64_t position = 0; position < span.count; position += 2) {
    const float* value = task.v + (span.begin + position) * task.v_stride;
    uint8_t* out = scratch.values + position / 2 * kVectorBytes;
    for (int64_t d = 0; d < scratch.shape.dim_v; d += kPanelRows, out += scratch.value_panel_bytes()) {
      const int64_t left = task.dim_v - d;
      const __mmask16 there = first_lanes(left < 0 ? 0 : left < kLanes ? static_cast<int>(left) : kLanes);
      const __mmask16 first = position < span.seen ? there : 0;
      const __mmask16 second = position + 1 < span.seen ? there : 0;
      const __m512i pair =
          round_pair(_mm512_maskz_loadu_ps(first, value + d), _mm512_maskz_loadu_ps(second, value + task.v_stride + d));
      _mm512_store_si512(out, _mm512_permutexvar_epi16(interleave, pair));
    }
  }
}

// Rows past the last are zeros.
void pack_queries(const AttentionBf16Task& task, const Scratch& scratch, const Block& block) {
  const __m512 factor = _mm512_set1_ps(task.scale * kLog2E);
  for (int row = 0; row < kBlockRows; ++row) {
    const float* query = task.q + (block.first + row) * task.q_stride + int64_t{block.head} * task.dim_k;
    const int64_t dim = block.first + row < task.rows ? task.dim_k : 0;
    uint16_t* out = scratch.queries + row * kStepK;
    for (int64_t d = 0; d < scratch.shape.dim_k; d += kStepK, out += kBlockRows * kStepK) {
      _mm512_store_si512(out, round_step(query, d, dim, factor));
    }
  }
}

// in_span: place of the chunk in the packed span; likewise below.
void score(const Scratch& scratch, const Positions& chunk, int64_t in_span) {
  const int64_t panel_bytes = scratch.key_panel_bytes();
  const uint8_t* panel = scratch.keys + in_span / kPanelRows * panel_bytes;
  for (int64_t i = 0; i < chunk.count; i += kBlockCols, panel += kBlockPanels * panel_bytes) {
    multiply_block(scratch.queries, panel, panel + panel_bytes, scratch.shape.dim_k / kStepK, false, scratch.scores + i,
                   kChunk);
  }
}

// 2^x for x <= 0 (or NaN); below -126 no more than there. Minimax on [-1/2, 1/2]: the relative error of 8e-5 is a 26th
// of what rounding to bfloat16 may add.
TM_INLINE __m512 exp2_weight(__m512 x) {
  constexpr int kExponentBits = 23;
  const __m512 shift = _mm512_set1_ps(0x1.8p23f);  // adding it rounds to whole numbers, in the lowest bits
  const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);  // keeps a NaN
  const __m512 whole = _mm512_add_ps(bounded, shift);
  const __m512 rest = _mm512_sub_ps(bounded, _mm512_sub_ps(whole, shift));
  __m512 power = _mm512_fmadd_ps(rest, _mm512_set1_ps(0.0551716648f), _mm512_set1_ps(0.2426111251f));
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(0.6932609677f));
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(0.9999280572f));
  const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(whole), kExponentBits);
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(power), exponent));
}

// Turns a row's scores of a chunk into weights relative to its maximum so far, and brings what was summed before to
// that.
TM_INLINE void weigh_row(const Scratch& scratch, const Block& block, const Positions& chunk, int row) {
  float* scores = scratch.scores + row * kChunk;
  for (int64_t i = chunk.seen; i < chunk.count; ++i) scores[i] = -kInfinity;
  const bool is_first = chunk.begin == 0;
  __m512 largest = _mm512_set1_ps(is_first ? -kInfinity : block.maxima[row]);
  for (int64_t i = 0; i < chunk.count; i += kLanes) largest = _mm512_max_ps(_mm512_load_ps(scores + i), largest);
  const float maximum = max_lane({largest});

  const __m512 shift = _mm512_set1_ps(maximum);
  __m512 totals[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  uint16_t* weights = scratch.weights + row * kStepK;
  for (int64_t i = 0; i < chunk.count; i += kStepK, weights += kBlockRows * kStepK) {
    const __m512 first = exp2_weight(_mm512_sub_ps(_mm512_load_ps(scores + i), shift));
    const __m512 second = exp2_weight(_mm512_sub_ps(_mm512_load_ps(scores + i + kLanes), shift));
    totals[0] = _mm512_add_ps(totals[0], first);
    totals[1] = _mm512_add_ps(totals[1], second);
    _mm512_store_si512(weights, round_pair(first, second));
  }
  float total = sum({_mm512_add_ps(totals[0], totals[1])});
  if (!is_first) {
    const __m512 correction = exp2_weight(_mm512_set1_ps(block.maxima[row] - maximum));
    total += _mm512_cvtss_f32(correction) * block.totals[row];
    float* sums = block.sums + row * scratch.shape.dim_v;
    for (int64_t d = 0; d < scratch.shape.dim_v; d += kLanes) {
      _mm512_store_ps(sums + d, _mm512_mul_ps(_mm512_load_ps(sums + d), correction));
    }
  }
  block.maxima[row] = maximum;
  block.totals[row] = total;
}

// Adds the weighted values of a chunk to the block's sums.
void add_values(const Scratch& scratch, const Block& block, const Positions& chunk, int64_t in_span) {
  const int64_t panel_bytes = scratch.value_panel_bytes();
  const uint8_t* panel = scratch.values + in_span / 2 * kVectorBytes;
  for (int64_t d = 0; d < scratch.shape.dim_v; d += kBlockCols, panel += kBlockPanels * panel_bytes) {
    multiply_block(scratch.weights, panel, panel + panel_bytes, chunk.count / kStepK, chunk.begin > 0, block.sums + d,
                   scratch.shape.dim_v);
  }
}

void write_rows(const AttentionBf16Task& task, const Scratch& scratch, const Block& block) {
  for (int row = 0; row < kBlockRows && block.first + row < task.rows; ++row) {
    const Vec factor = set(1.0f / block.totals[row]);
    const float* sums = block.sums + row * scratch.shape.dim_v;
    float* out = task.out + (block.first + row) * task.out_stride + int64_t{block.head} * task.dim_v;
    for (int d = 0; d < task.dim_v; d += kLanes) store(out + d, load(sums + d) * factor, task.dim_v - d);
  }
}

void run_span(const AttentionBf16Task& task, const Scratch& scratch, const Positions& span) {
  pack_keys(task, scratch, span);
  pack_values(task, scratch, span);
  Block block{0, 0, scratch.sums, scratch.maxima, scratch.totals};
  for (; block.head < task.group; ++block.head) {
    for (block.first = 0; block.first < task.rows; block.first += kBlockRows) {
      pack_queries(task, scratch, block);
      for (int64_t in_span = 0; in_span < span.count; in_span += kChunk) {
        const Positions chunk = positions_from(task, span.begin + in_span, kChunk);
        score(scratch, chunk, in_span);
        for (int row = 0; row < kBlockRows; ++row) weigh_row(scratch, block, chunk, row);
        add_values(scratch, block, chunk, in_span);
      }
      if (span.begin + span.seen == task.length) write_rows(task, scratch, block);
      block.sums += kBlockRows * scratch.shape.dim_v;
      block.maxima += kBlockRows;
      block.totals += kBlockRows;
    }
  }
}

void run(const AttentionBf16Task& task) {
  static_assert(kBf16SpanPositions % kChunk == 0);
  const Scratch scratch(task);
  begin_products();
  for (int64_t begin = 0; begin < task.length; begin += kBf16SpanPositions) {
    run_span(task, scratch, positions_from(task, begin, kBf16SpanPositions));
  }
  end_products();
}

}  // namespace

void fill(AttentionBf16Kernels& kernels) { kernels = {run}; }

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
