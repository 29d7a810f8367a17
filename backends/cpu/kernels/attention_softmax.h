// SPDX-License-Identifier: Apache-2.0
//
// Running softmax of the rows of a tile, in the log2 domain. Included by attention.cc.
#pragma once

#include "kernels/attention_products.h"
#include "kernels/simd_math.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kInfinity = __builtin_inff();

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

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
