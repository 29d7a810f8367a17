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

constexpr int kSkinnyWarps = 8;
constexpr int kSkinnyUnroll = 4;

// Two 16-bit elements in 32 bits, as float32.
__device__ __forceinline__ float2 to_float2(uint32_t bits, __nv_bfloat16) {
  return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
}
__device__ __forceinline__ float2 to_float2(uint32_t bits, __half) {
  return __half22float2(*reinterpret_cast<const __half2*>(&bits));
}

template <class T>
__device__ __forceinline__ float dot8(const uint4& w, const uint4& x, float sum) {
  const uint32_t ws[4] = {w.x, w.y, w.z, w.w};
  const uint32_t xs[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 a = to_float2(ws[i], T{});
    const float2 b = to_float2(xs[i], T{});
    sum = fmaf(a.x, b.x, sum);
    sum = fmaf(a.y, b.y, sum);
  }
  return sum;
}

// A warp per output column and kRows rows. Lane l sums the vectors l, l + 32, ...; w is streamed past the caches.
template <class T, class Out, int kRows>
__global__ void __launch_bounds__(kSkinnyWarps* kWarp)
    skinny_linear(const T* x, const T* w, Out* out, LinearShape shape, Epilogue epilogue) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kSkinnyWarps + threadIdx.x / kWarp;
  if (column >= shape.n) return;
  const int lane = threadIdx.x % kWarp;
  const auto* weights = reinterpret_cast<const uint4*>(w + column * shape.w_stride);
  const int64_t vectors = shape.k / kPerVector<T>;
  float sums[kRows] = {};
  const auto add = [&](const uint4& weight, int64_t vector) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint4 row = __ldg(reinterpret_cast<const uint4*>(x + r * shape.x_stride) + vector);
      sums[r] = dot8<T>(weight, row, sums[r]);
    }
  };
  int64_t vector = lane;
  for (; vector + (kSkinnyUnroll - 1) * kWarp < vectors; vector += kSkinnyUnroll * kWarp) {
    uint4 loaded[kSkinnyUnroll];
#pragma unroll
    for (int i = 0; i < kSkinnyUnroll; ++i) loaded[i] = __ldcs(weights + vector + i * kWarp);
#pragma unroll
    for (int i = 0; i < kSkinnyUnroll; ++i) add(loaded[i], vector + i * kWarp);
  }
  for (; vector < vectors; vector += kWarp) add(__ldcs(weights + vector), vector);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float sum = warp_sum(sums[r]);
    if (lane == 0 && r < shape.rows)
      out[r * shape.out_stride + column] = from_float<Out>(finish(sum, epilogue, column));
  }
}

template <class T, class Out, int kRows>
void run_skinny(cudaStream_t stream, const LinearShape& shape, const void* x, const void* w, void* out,
                const Epilogue& epilogue) {
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(shape.n, kSkinnyWarps));
  skinny_linear<T, Out, kRows><<<blocks, kSkinnyWarps * kWarp, 0, stream>>>(
      static_cast<const T*>(x), static_cast<const T*>(w), static_cast<Out*>(out), shape, epilogue);
  check_launch("skinny_linear");
}

template <class T, class Out>
void dispatch_skinny(cudaStream_t stream, const LinearShape& shape, const void* x, const void* w, void* out,
                     const Epilogue& epilogue) {
  switch (shape.rows) {
    case 1:
      return run_skinny<T, Out, 1>(stream, shape, x, w, out, epilogue);
    case 2:
      return run_skinny<T, Out, 2>(stream, shape, x, w, out, epilogue);
    case 3:
      return run_skinny<T, Out, 3>(stream, shape, x, w, out, epilogue);
    case 4:
      return run_skinny<T, Out, 4>(stream, shape, x, w, out, epilogue);
    default:
      throw abi::Error(TM_INTERNAL, "skinny_linear: expected at most 4 rows, found " + std::to_string(shape.rows));
  }
}

constexpr int kEpilogueThreads = 256;

template <class T>
__global__ void linear_epilogue(T* out, int64_t rows, int64_t n, int64_t stride, Epilogue epilogue) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= n) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    T& value = out[row * stride + column];
    value = from_float<T>(finish(to_float(value), epilogue, column));
  }
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

void launch_skinny_linear(cudaStream_t stream, const LinearShape& shape, const void* x, const void* w, void* out,
                          tm_dtype dtype, tm_dtype out_dtype, const Epilogue& epilogue) {
  const bool wide = out_dtype == TM_F32;
  if (dtype == TM_BF16) {
    return wide ? dispatch_skinny<__nv_bfloat16, float>(stream, shape, x, w, out, epilogue)
                : dispatch_skinny<__nv_bfloat16, __nv_bfloat16>(stream, shape, x, w, out, epilogue);
  }
  return wide ? dispatch_skinny<__half, float>(stream, shape, x, w, out, epilogue)
              : dispatch_skinny<__half, __half>(stream, shape, x, w, out, epilogue);
}

void launch_linear_epilogue(cudaStream_t stream, void* out, tm_dtype dtype, int64_t rows, int64_t n, int64_t stride,
                            const Epilogue& epilogue) {
  if (rows == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(n, kEpilogueThreads)), grid_y(rows));
  dispatch_float(dtype, "out", [&](auto type) {
    linear_epilogue<<<grid, kEpilogueThreads, 0, stream>>>(static_cast<decltype(type)*>(out), rows, n, stride,
                                                           epilogue);
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
