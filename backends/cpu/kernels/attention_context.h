// SPDX-License-Identifier: Apache-2.0
//
// Where the keys and values of one chunk of positions lie, and their copies in float32. Included by attention.cc.
#pragma once

#include "kernels/attention.h"
#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

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

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
