// SPDX-License-Identifier: Apache-2.0
//
// Non-causal attention of a kv head by AVX512_BF16 or on the matrix unit of Intel AMX: queries, keys, values and
// softmax weights are rounded to bfloat16, their products and everything else are float32. Positions are met in chunks
// that begin at fixed places of the sequence (attention.h says why), so a row's bits do not depend on the rows around
// it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/panels.h"

namespace turbomind::cpu {

inline constexpr int kBf16ChunkPositions = 256;      // softmax statistics are updated once per chunk
inline constexpr int64_t kBf16SpanPositions = 1024;  // packed at a time, to be met by all rows of the task
inline constexpr int64_t kBf16TaskRows = 1024;       // at most, counted over the heads of the group
inline constexpr int64_t kBf16AttentionStep = 32;    // rows of a block; k of a product

struct AttentionBf16Task {
  const float* q;  // [rows, group, dim_k], rows q_stride apart
  const float* k;  // [length, dim_k]
  const float* v;  // [length, dim_v]
  float* out;      // [rows, group, dim_v]
  int64_t q_stride;
  int64_t k_stride;
  int64_t v_stride;
  int64_t out_stride;
  int64_t rows;
  int64_t length;  // of the sequence
  int group;       // query heads of the kv head
  int dim_k;
  int dim_v;
  float scale;
  std::byte* scratch;  // attention_bf16_shape().bytes(), 64-byte aligned
};

// Bytes of the parts that scratch memory is cut into, in this order. All lengths are whole steps.
struct AttentionBf16Shape {
  int64_t rows;  // over the heads of the group
  int64_t span;
  int64_t dim_k;
  int64_t dim_v;

  constexpr int64_t keys() const { return 2 * span * dim_k; }    // panels of 16 positions, along dim_k
  constexpr int64_t values() const { return 2 * span * dim_v; }  // panels of 16 dimensions, along the positions
  constexpr int64_t queries() const { return 2 * kBf16AttentionStep * dim_k; }
  constexpr int64_t weights() const { return 2 * kBf16AttentionStep * kBf16ChunkPositions; }
  constexpr int64_t scores() const { return 4 * kBf16AttentionStep * kBf16ChunkPositions; }
  constexpr int64_t sums() const { return 4 * rows * dim_v; }
  constexpr int64_t statistics() const { return 4 * rows; }  // twice: maxima, totals
  constexpr int64_t bytes() const {
    return keys() + values() + queries() + weights() + scores() + sums() + 2 * statistics();
  }
};

constexpr AttentionBf16Shape attention_bf16_shape(int64_t rows, int64_t group, int64_t length, int64_t dim_k,
                                                  int64_t dim_v) {
  const int64_t span = length < kBf16SpanPositions ? length : kBf16SpanPositions;
  return {group * round_up(rows, kBf16AttentionStep), round_up(span, kBf16AttentionStep),
          round_up(dim_k, kBf16AttentionStep), round_up(dim_v, kBf16AttentionStep)};
}

struct AttentionBf16Kernels {
  void (*run)(const AttentionBf16Task&);  // nullptr: the processor has neither
};

}  // namespace turbomind::cpu
