// SPDX-License-Identifier: Apache-2.0
//
// What every kernel file uses: conversions, vectors of 16 bytes, reductions in a fixed order, dispatch over dtypes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "cuda_check.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kVectorBytes = 16;
inline constexpr unsigned kMaxGridY = 65535;

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};

template <class T>
inline constexpr int kPerVector = kVectorBytes / static_cast<int>(sizeof(T));

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(int8_t x) { return static_cast<float>(x); }

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, offset));
  return x;
}

// Combines one value per lane with an associative op; every lane gets the result.
template <class T, class Op>
__device__ __forceinline__ T warp_reduce(T value, Op op) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value = op(value, __shfl_xor_sync(~0u, value, offset));
  return value;
}

// The same over a block of whole warps; `shared` holds a value per warp. The order depends on the block's size only.
// The second stage is one of shuffles: ptxas 13.0 reads past the array in a loop over it.
template <class T, class Op>
__device__ __forceinline__ T block_reduce(T value, T* shared, T identity, Op op) {
  value = warp_reduce(value, op);
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  if (warps == 1) return value;
  __syncthreads();  // the last reduction's readers are done
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  return warp_reduce(lane < warps ? shared[lane] : identity, op);
}

template <class T>
__device__ __forceinline__ T block_sum(T value, T* shared) {
  return block_reduce(value, shared, T{0}, [](T a, T b) { return a + b; });
}

// Calls fn with a value of the C++ type of an activation dtype.
template <class Fn>
void dispatch_float(tm_dtype dtype, const char* argument, Fn&& fn) {
  switch (dtype) {
    case TM_F32:
      return fn(float{});
    case TM_F16:
      return fn(__half{});
    case TM_BF16:
      return fn(__nv_bfloat16{});
    default:
      throw abi::Error(TM_INVALID_ARGUMENT, std::string(argument) +
                                                ": expected float32, float16 or bfloat16, found dtype " +
                                                std::to_string(static_cast<int>(dtype)));
  }
}

inline bool aligned_to_vector(const void* data) { return reinterpret_cast<uintptr_t>(data) % kVectorBytes == 0; }

// Throws abi::Error if the launch before was refused, or the device is lost.
inline void check_launch(const char* kernel) { check_cuda(cudaGetLastError(), kernel); }

inline unsigned grid_y(int64_t rows) { return static_cast<unsigned>(rows < kMaxGridY ? rows : kMaxGridY); }

template <class T>
T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

}  // namespace turbomind::cuda
