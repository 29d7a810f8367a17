// SPDX-License-Identifier: Apache-2.0
//
// Products of a few rows with a segment of a chunk: scores, and weighted sums of values. Included by attention.cc.
#pragma once

#include "kernels/attention_context.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

// A micro tile holds kGroupRows x kTileVecs running sums in registers.
constexpr int kGroupRows = 6;
#if defined(TM_ISA_AVX512)
constexpr int kTileVecs = 4;
#else
constexpr int kTileVecs = 2;
#endif

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

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
