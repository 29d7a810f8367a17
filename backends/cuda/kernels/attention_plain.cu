// SPDX-License-Identifier: Apache-2.0
//
// Attention for what tensor cores do not take. Softmax with running statistics (Milakov & Gimelshein 2018,
// arXiv:1805.02867) over chunks of 32 positions that begin at multiples of 32.
#include <cmath>

#include "kernels/attention.h"
#include "kernels/common.cuh"

namespace turbomind::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxPerLane = kMaxHeadDim / kWarp;
constexpr float kLog2E = 1.4426950408889634f;

// Keys and values of one sequence and kv head. Positions count from the sequence's begin.
template <class KV>
class PagedContext {
 public:
  __device__ PagedContext(const PagedKv& kv, const StepView& step, int seq, int head)
      : layout_(kv.layout),
        head_(kv.pool + kv.layout.head(0, head)),
        table_(step.block_table + seq * step.block_table_stride) {}

  __device__ float score(const float* q, int dim, int position) const {
    constexpr int kCount = kHeadDimMultiple;
    const int place = position % layout_.block_size;
    const std::byte* block = block_of(position);
    float sum = 0.0f;
    for (int d = 0; d < dim; d += kCount) {
      const auto k = *reinterpret_cast<const Pack<KV, kCount>*>(
          block + layout_.keys.offset(place, d * static_cast<int>(sizeof(KV))));
#pragma unroll
      for (int i = 0; i < kCount; ++i) sum = fmaf(q[d + i], to_float(k.v[i]), sum);
    }
    return sizeof(KV) == 1 ? sum * scales(block)[place] : sum;
  }

  __device__ void add_value(float weight, int position, int dim, int lane, float (&sum)[kMaxPerLane]) const {
    const int place = position % layout_.block_size;
    const std::byte* block = block_of(position);
    if (sizeof(KV) == 1) weight *= scales(block)[layout_.block_size + place];
    const std::byte* values = block + layout_.value_offset;
#pragma unroll
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int d = lane + i * kWarp;
      if (d >= dim) break;
      const int64_t offset = layout_.values.offset(place, d * static_cast<int>(sizeof(KV)));
      sum[i] = fmaf(weight, to_float(*reinterpret_cast<const KV*>(values + offset)), sum[i]);
    }
  }

 private:
  __device__ const std::byte* block_of(int position) const {
    return head_ + table_[position / layout_.block_size] * layout_.block_bytes;
  }
  __device__ const float* scales(const std::byte* block) const {
    return reinterpret_cast<const float*>(block + layout_.scale_offset);
  }

  const KvLayout& layout_;
  const std::byte* head_;
  const int32_t* table_;
};

template <class T>
class DenseContext {
 public:
  __device__ DenseContext(const DenseKv& kv, const StepView& step, int seq, int head, int dim_k, int dim_v)
      : k_(static_cast<const T*>(kv.k) + step.cu_seqlens_q[seq] * kv.k_stride + head * dim_k),
        v_(static_cast<const T*>(kv.v) + step.cu_seqlens_q[seq] * kv.v_stride + head * dim_v),
        k_stride_(kv.k_stride),
        v_stride_(kv.v_stride) {}

  __device__ float score(const float* q, int dim, int position) const {
    const T* k = k_ + position * k_stride_;
    float sum = 0.0f;
    for (int d = 0; d < dim; ++d) sum = fmaf(q[d], to_float(k[d]), sum);
    return sum;
  }

  __device__ void add_value(float weight, int position, int dim, int lane, float (&sum)[kMaxPerLane]) const {
    const T* v = v_ + position * v_stride_;
#pragma unroll
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int d = lane + i * kWarp;
      if (d >= dim) break;
      sum[i] = fmaf(weight, to_float(v[d]), sum[i]);
    }
  }

 private:
  const T* k_;
  const T* v_;
  int64_t k_stride_;
  int64_t v_stride_;
};

// One row and head against positions [begin, end) of a context.
template <class T, class Context>
__device__ void attend(const AttentionRows& rows, const Context& context, int64_t row, int head, int begin, int end,
                       float* q) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const T* q_row = static_cast<const T*>(rows.q) + row * rows.q_stride + static_cast<int64_t>(head) * rows.dim_k;
  for (int d = lane; d < rows.dim_k; d += kWarp) q[d] = to_float(q_row[d]);
  __syncwarp();
  float largest = rows.sinks ? rows.sinks[head] * kLog2E : -INFINITY;
  float total = rows.sinks ? 1.0f : 0.0f;
  float sum[kMaxPerLane] = {};
  for (int chunk = begin / kWarp * kWarp; chunk < end; chunk += kWarp) {
    const int position = chunk + lane;
    float score = -INFINITY;
    if (position >= begin && position < end) {
      score = context.score(q, rows.dim_k, position) * rows.scale;
      if (rows.softcap > 0.0f) score = rows.softcap * tanhf(score / rows.softcap);
      score *= kLog2E;
    }
    const float chunk_largest = fmaxf(largest, warp_max(score));
    // All scores may be -infinity.
    const float base = chunk_largest == -INFINITY ? 0.0f : chunk_largest;
    const float factor = exp2f(largest - base);
    const float weight = exp2f(score - base);
    largest = chunk_largest;
    total = total * factor + warp_sum(weight);
#pragma unroll
    for (int i = 0; i < kMaxPerLane; ++i) sum[i] *= factor;
    const int first = max(chunk, begin);
    const int last = min(chunk + kWarp, end);
    for (int p = first; p < last; ++p) {
      context.add_value(__shfl_sync(~0u, weight, p - chunk), p, rows.dim_v, lane, sum);
    }
  }
  T* out = static_cast<T*>(rows.out) + row * rows.out_stride + static_cast<int64_t>(head) * rows.dim_v;
#pragma unroll
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int d = lane + i * kWarp;
    if (d < rows.dim_v) out[d] = from_float<T>(sum[i] / total);
  }
}

// A warp per row and head.
template <class T, class KV, class Kv>
__global__ void __launch_bounds__(kWarps* kWarp)
    attend_rows(const AttentionRows rows, const Kv kv, const StepView step) {
  __shared__ float shared[kWarps][kMaxHeadDim];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  const int64_t row = index / rows.q_heads;
  const int head = static_cast<int>(index % rows.q_heads);
  if (row >= rows.rows) return;
  const int seq = step.row_seq[row];
  if (seq < 0) {
    T* out = static_cast<T*>(rows.out) + row * rows.out_stride + static_cast<int64_t>(head) * rows.dim_v;
    for (int d = static_cast<int>(threadIdx.x) % kWarp; d < rows.dim_v; d += kWarp) out[d] = from_float<T>(0.0f);
    return;
  }
  const int kv_head = static_cast<int>(static_cast<int64_t>(head) * rows.kv_heads / rows.q_heads);
  if constexpr (std::is_same_v<Kv, PagedKv>) {
    const int position = step.context_lens[seq] - step.cu_seqlens_q[seq + 1] + static_cast<int>(row);
    const int begin = rows.window > 0 ? max(0, position - rows.window + 1) : 0;
    const PagedContext<KV> context(kv, step, seq, kv_head);
    const int past = step.row_end ? step.row_end[row] : position + 1;
    attend<T>(rows, context, row, head, begin, past, shared[warp]);
  } else {
    const DenseContext<T> context(kv, step, seq, kv_head, rows.dim_k, rows.dim_v);
    attend<T>(rows, context, row, head, 0, step.cu_seqlens_q[seq + 1] - step.cu_seqlens_q[seq], shared[warp]);
  }
}

unsigned num_blocks(const AttentionRows& rows) {
  return static_cast<unsigned>(ceil_div<int64_t>(rows.rows * rows.q_heads, kWarps));
}

}  // namespace

void launch_attention_plain(cudaStream_t stream, const AttentionRows& rows, const PagedKv& kv, const StepView& step) {
  if (rows.rows == 0 || rows.q_heads == 0) return;
  dispatch_float(rows.dtype, "q", [&](auto zero) {
    using T = decltype(zero);
    if (kv.dtype == TM_I8) {
      attend_rows<T, int8_t><<<num_blocks(rows), kWarps * kWarp, 0, stream>>>(rows, kv, step);
      return;
    }
    dispatch_float(kv.dtype, "kv", [&](auto stored) {
      attend_rows<T, decltype(stored)><<<num_blocks(rows), kWarps * kWarp, 0, stream>>>(rows, kv, step);
    });
  });
  check_launch("attention");
}

void launch_attention_plain(cudaStream_t stream, const AttentionRows& rows, const DenseKv& kv, const StepView& step) {
  if (rows.rows == 0 || rows.q_heads == 0) return;
  dispatch_float(rows.dtype, "q", [&](auto zero) {
    using T = decltype(zero);
    attend_rows<T, T><<<num_blocks(rows), kWarps * kWarp, 0, stream>>>(rows, kv, step);
  });
  check_launch("attention_dense");
}

}  // namespace turbomind::cuda
