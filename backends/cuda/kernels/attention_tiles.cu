// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/attention_tiles.cuh"
#include "kernels/launch.cuh"

namespace turbomind::cuda {

template <class T>
void launch_paged_tiles(cudaStream_t stream, const TileCall& call, const PagedKv& kv, const Partials& partials);
template <class T>
void launch_dense_tiles(cudaStream_t stream, const TileCall& call, const DenseKv& kv);
extern template void launch_paged_tiles<__half>(cudaStream_t, const TileCall&, const PagedKv&, const Partials&);
extern template void launch_paged_tiles<__nv_bfloat16>(cudaStream_t, const TileCall&, const PagedKv&, const Partials&);
extern template void launch_dense_tiles<__half>(cudaStream_t, const TileCall&, const DenseKv&);
extern template void launch_dense_tiles<__nv_bfloat16>(cudaStream_t, const TileCall&, const DenseKv&);

namespace {

constexpr int kMergeWarps = 8;
constexpr int kMaxPerLane = kMaxHeadDim / kWarp;

// Splits' shares of a row's result, for one lane's split of every 32.
struct Shares {
  float largest;
  float sum;
};

// The statistics of all splits together, in the order of lanes and steps whatever their number.
__device__ Shares all_splits(const Partials& partials, const MergeItem& item, int q_heads, int head, int lane) {
  float largest = -INFINITY;
  for (int split = lane; split < item.splits; split += kWarp) {
    const int64_t partial = static_cast<int64_t>(item.partial_row + split * item.step) * q_heads + head;
    largest = fmaxf(largest, partials.maxima[partial]);
  }
  largest = warp_max(largest);
  float sum = 0.0f;
  for (int split = lane; split < item.splits; split += kWarp) {
    const int64_t partial = static_cast<int64_t>(item.partial_row + split * item.step) * q_heads + head;
    sum += partials.sums[partial] * exp2f(partials.maxima[partial] - largest);
  }
  return {largest, warp_sum(sum)};
}

// A warp per row and head. The row sees at least one key, so the largest score is finite.
template <class T>
__global__ void __launch_bounds__(kMergeWarps* kWarp)
    merge_splits(const AttentionRows rows, const MergeItems merges, const Partials partials) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t total = static_cast<int64_t>(*merges.count) * rows.q_heads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kMergeWarps + threadIdx.x / kWarp;
  for (int64_t index = first; index < total; index += static_cast<int64_t>(gridDim.x) * kMergeWarps) {
    const MergeItem item = merges.items[index / rows.q_heads];
    const int head = static_cast<int>(index % rows.q_heads);
    const Shares all = all_splits(partials, item, rows.q_heads, head, lane);
    float values[kMaxPerLane] = {};
#pragma unroll 4
    for (int split = 0; split < item.splits; ++split) {
      const int64_t partial = static_cast<int64_t>(item.partial_row + split * item.step) * rows.q_heads + head;
      const float factor = exp2f(partials.maxima[partial] - all.largest);
      const float* from = partials.values + partial * rows.dim_v;
#pragma unroll
      for (int i = 0; i < kMaxPerLane; ++i) {
        const int d = lane + i * kWarp;
        if (d < rows.dim_v) values[i] = fmaf(from[d], factor, values[i]);
      }
    }
    const float factor = output_factor(all.largest, all.sum, rows.sinks, head);
    T* out = static_cast<T*>(rows.out) + item.row * rows.out_stride + static_cast<int64_t>(head) * rows.dim_v;
#pragma unroll
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int d = lane + i * kWarp;
      if (d < rows.dim_v) out[d] = from_float<T>(values[i] * factor);
    }
  }
}

bool rows_take(const AttentionRows& rows) {
  return (rows.dtype == TM_F16 || rows.dtype == TM_BF16) && aligned_to_vector(rows.q) && rows.q_stride % 8 == 0 &&
         rows.dim_k % 8 == 0 && rows.dim_v % 8 == 0 && rows.dim_k <= kMaxHeadDim && rows.dim_v <= kMaxHeadDim &&
         reinterpret_cast<uintptr_t>(rows.out) % sizeof(uint32_t) == 0 && rows.out_stride % 2 == 0;
}

}  // namespace

bool tiles_take(const AttentionRows& rows, tm_dtype kv_dtype) {
  return rows_take(rows) && (kv_dtype == rows.dtype || kv_dtype == TM_I8);
}

bool tiles_take(const AttentionRows& rows, const DenseKv& kv) {
  return rows_take(rows) && aligned_to_vector(kv.k) && aligned_to_vector(kv.v) && kv.k_stride % 8 == 0 &&
         kv.v_stride % 8 == 0;
}

void launch_attention_tiles(cudaStream_t stream, const TileCall& call, const PagedKv& kv, const Partials& partials) {
  if (call.rows.dtype == TM_F16) {
    launch_paged_tiles<__half>(stream, call, kv, partials);
  } else {
    launch_paged_tiles<__nv_bfloat16>(stream, call, kv, partials);
  }
  check_launch("attention");
}

void launch_attention_tiles(cudaStream_t stream, const TileCall& call, const DenseKv& kv) {
  if (call.rows.dtype == TM_F16) {
    launch_dense_tiles<__half>(stream, call, kv);
  } else {
    launch_dense_tiles<__nv_bfloat16>(stream, call, kv);
  }
  check_launch("attention_dense");
}

void launch_attention_merge(cudaStream_t stream, const AttentionRows& rows, const MergeItems& merges,
                            const Partials& partials) {
  const int64_t total = static_cast<int64_t>(merges.capacity) * rows.q_heads;
  if (total == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(total, kMergeWarps));
  dispatch_float(rows.dtype, "q", [&](auto zero) {
    launch_kernel("attention", stream, dim3(blocks), kMergeWarps * kWarp, 0, merge_splits<decltype(zero)>, rows, merges,
                  partials);
  });
  check_launch("attention");
}

}  // namespace turbomind::cuda
