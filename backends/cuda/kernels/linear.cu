// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/activation.cuh"
#include "kernels/common.cuh"
#include "kernels/linear.h"

namespace turbomind::cuda {
namespace {

__device__ __forceinline__ float finish(float sum, const Epilogue& epilogue, int64_t column) {
  return activate(epilogue.activation, epilogue.bias ? sum + epilogue.bias[column] : sum);
}

constexpr int kEpilogueThreads = 256;

// kCount columns per thread.
template <class T, int kCount>
__global__ void __launch_bounds__(kEpilogueThreads)
    linear_epilogue(T* out, int64_t rows, int64_t n, int64_t stride, Epilogue epilogue) {
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kCount;
  if (column >= n) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    auto& values = *reinterpret_cast<Pack<T, kCount>*>(out + row * stride + column);
    Pack<T, kCount> pack = values;
#pragma unroll
    for (int i = 0; i < kCount; ++i) pack.v[i] = from_float<T>(finish(to_float(pack.v[i]), epilogue, column + i));
    values = pack;
  }
}

template <class T, int kCount>
void launch_epilogue(cudaStream_t stream, T* out, int64_t rows, int64_t n, int64_t stride, const Epilogue& epilogue) {
  const int64_t chunks = n / kCount;
  const int64_t threads = std::min<int64_t>(ceil_div<int64_t>(chunks, kWarp) * kWarp, kEpilogueThreads);
  const dim3 grid(static_cast<unsigned>(ceil_div(chunks, threads)), grid_y(rows));
  linear_epilogue<T, kCount><<<grid, static_cast<unsigned>(threads), 0, stream>>>(out, rows, n, stride, epilogue);
}

constexpr int kGroupedColumns = 64;
constexpr int kGroupedRows = 16;
constexpr int kRowsPerThread = 4;

// The last expert whose rows begin at or before `row`.
__device__ int expert_of(const int32_t* offsets, int num_experts, int64_t row) {
  int low = 0;
  int high = num_experts - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (offsets[middle] <= row) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// A thread sums one column of kRowsPerThread rows; where those rows belong to several experts it does so row by row.
template <class T>
__global__ void grouped_linear(const T* x, const T* w, T* out, LinearShape shape, const int32_t* offsets,
                               int num_experts) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kGroupedColumns + threadIdx.x % kGroupedColumns;
  const int64_t first =
      static_cast<int64_t>(blockIdx.y) * kGroupedRows + threadIdx.x / kGroupedColumns * kRowsPerThread;
  if (column >= shape.n) return;
  for (int64_t row = first; row < first + kRowsPerThread && row < shape.rows; ++row) {
    const int expert = expert_of(offsets, num_experts, row);
    const T* weights = w + (expert * shape.n + column) * shape.w_stride;
    const T* values = x + row * shape.x_stride;
    float sum = 0;
    for (int64_t k = 0; k < shape.k; ++k) sum = fmaf(to_float(values[k]), to_float(weights[k]), sum);
    out[row * shape.out_stride + column] = from_float<T>(sum);
  }
}

}  // namespace

void launch_linear_epilogue(cudaStream_t stream, void* out, tm_dtype dtype, int64_t rows, int64_t n, int64_t stride,
                            const Epilogue& epilogue) {
  if (rows == 0) return;
  dispatch_float(dtype, "out", [&](auto type) {
    using T = decltype(type);
    if (aligned_to_vector(out) && n % kPerVector<T> == 0 && stride % kPerVector<T> == 0) {
      launch_epilogue<T, kPerVector<T>>(stream, static_cast<T*>(out), rows, n, stride, epilogue);
    } else {
      launch_epilogue<T, 1>(stream, static_cast<T*>(out), rows, n, stride, epilogue);
    }
  });
  check_launch("linear_epilogue");
}

void launch_grouped_linear(cudaStream_t stream, const LinearShape& shape, const void* x, const void* w, void* out,
                           tm_dtype dtype, const int32_t* offsets, int32_t num_experts) {
  if (shape.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(shape.n, kGroupedColumns)),
                  static_cast<unsigned>(ceil_div<int64_t>(shape.rows, kGroupedRows)));
  constexpr int kThreads = kGroupedColumns * kGroupedRows / kRowsPerThread;
  dispatch_float(dtype, "x", [&](auto type) {
    using T = decltype(type);
    grouped_linear<<<grid, kThreads, 0, stream>>>(static_cast<const T*>(x), static_cast<const T*>(w),
                                                  static_cast<T*>(out), shape, offsets, num_experts);
  });
  check_launch("grouped_linear");
}

}  // namespace turbomind::cuda
