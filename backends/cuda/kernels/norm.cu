// SPDX-License-Identifier: Apache-2.0
//
// Norms: a block per row, whose elements stay in registers between the reduction and the store. Which thread sums what
// depends on the width only, so a row's bits do not depend on its place, its alignment or the other rows.
#include "kernels/common.cuh"
#include "kernels/norm.h"

namespace turbomind::cuda {
namespace {

constexpr int kMaxThreads = 512;

struct NormArgs {
  const void* x;
  void* residual;  // add_rms_norm only
  const float* weight;
  const float* bias;  // layer_norm only; nullptr: none
  void* out;
  int64_t x_stride;  // elements from row to row, as the next two
  int64_t residual_stride;
  int64_t out_stride;
  int64_t heads;  // parts of a row that are normalised by themselves
  int64_t dim;
  float eps;
  bool vectors;  // every row starts and ends on 16 bytes
};

// kPerVector<T> elements from `index` on; those past the end are zero.
template <class T>
__device__ __forceinline__ void load_group(const T* row, int64_t index, int64_t dim, bool vectors,
                                           float (&x)[kPerVector<T>]) {
  constexpr int kCount = kPerVector<T>;
  if (vectors) {
    if (index < dim) {
      const auto pack = *reinterpret_cast<const Pack<T, kCount>*>(row + index);
#pragma unroll
      for (int i = 0; i < kCount; ++i) x[i] = to_float(pack.v[i]);
      return;
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = 0.0f;
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) x[i] = index + i < dim ? to_float(row[index + i]) : 0.0f;
}

template <class T>
__device__ __forceinline__ void store_group(T* row, int64_t index, int64_t dim, bool vectors,
                                            const float (&x)[kPerVector<T>]) {
  constexpr int kCount = kPerVector<T>;
  if (vectors) {
    if (index >= dim) return;
    Pack<T, kCount> pack;
#pragma unroll
    for (int i = 0; i < kCount; ++i) pack.v[i] = from_float<T>(x[i]);
    *reinterpret_cast<Pack<T, kCount>*>(row + index) = pack;
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (index + i < dim) row[index + i] = from_float<T>(x[i]);
  }
}

template <class T>
__device__ __forceinline__ T* row_of(void* data, int64_t stride, const NormArgs& args) {
  return static_cast<T*>(data) + blockIdx.x / args.heads * stride + blockIdx.x % args.heads * args.dim;
}

enum class NormKind { kRms, kAddRms, kLayer };

// One row; kGroups vectors per thread stay in registers.
template <class T, NormKind kKind, int kGroups>
__global__ void __launch_bounds__(kMaxThreads) norm_row(const NormArgs args) {
  constexpr int kCount = kPerVector<T>;
  __shared__ float shared[kMaxThreads / kWarp];
  const T* in = row_of<const T>(const_cast<void*>(args.x), args.x_stride, args);
  float x[kGroups][kCount];
  float sum = 0.0f;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const int64_t index = (g * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kCount;
    load_group(in, index, args.dim, args.vectors, x[g]);
    if constexpr (kKind == NormKind::kAddRms) {
      T* residual = row_of<T>(args.residual, args.residual_stride, args);
      float r[kCount];
      load_group<T>(residual, index, args.dim, args.vectors, r);
#pragma unroll
      for (int i = 0; i < kCount; ++i) x[g][i] = to_float(from_float<T>(x[g][i] + r[i]));
      store_group(residual, index, args.dim, args.vectors, x[g]);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum += kKind == NormKind::kLayer ? x[g][i] : x[g][i] * x[g][i];
  }
  sum = block_sum(sum, shared);
  float mean = 0.0f;
  if constexpr (kKind == NormKind::kLayer) {
    mean = sum / static_cast<float>(args.dim);
    float squares = 0.0f;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int64_t index = (g * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kCount;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const float d = index + i < args.dim ? x[g][i] - mean : 0.0f;
        squares += d * d;
      }
    }
    sum = block_sum(squares, shared);
  }
  const float factor = rsqrtf(sum / static_cast<float>(args.dim) + args.eps);
  T* out = row_of<T>(args.out, args.out_stride, args);
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const int64_t index = (g * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kCount;
    if (index >= args.dim) continue;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int64_t at = index + i < args.dim ? index + i : index;
      x[g][i] = (x[g][i] - mean) * factor * args.weight[at];
      if (kKind == NormKind::kLayer && args.bias) x[g][i] += args.bias[at];
    }
    store_group(out, index, args.dim, args.vectors, x[g]);
  }
}

bool vectors_fit(const tm_tensor& tensor, int64_t dim, int64_t per_vector) {
  return aligned_to_vector(tensor.data) && tensor.stride[0] % per_vector == 0 && dim % per_vector == 0;
}

template <class T, NormKind kKind>
void launch_row(cudaStream_t stream, const NormArgs& args, int64_t rows) {
  const int64_t groups = ceil_div<int64_t>(args.dim, kPerVector<T>);
  const int64_t threads = groups < kMaxThreads ? ceil_div<int64_t>(groups, kWarp) * kWarp : kMaxThreads;
  const int64_t per_thread = ceil_div(groups, threads);
  const auto blocks = static_cast<unsigned>(rows * args.heads);
  const auto block = static_cast<unsigned>(threads);
  if (per_thread == 1) {
    norm_row<T, kKind, 1><<<blocks, block, 0, stream>>>(args);
  } else if (per_thread == 2) {
    norm_row<T, kKind, 2><<<blocks, block, 0, stream>>>(args);
  } else if (per_thread <= 4) {
    norm_row<T, kKind, 4><<<blocks, block, 0, stream>>>(args);
  } else if (per_thread <= 8) {
    norm_row<T, kKind, 8><<<blocks, block, 0, stream>>>(args);
  } else {
    throw abi::Error(TM_UNSUPPORTED, "x: expected at most " + std::to_string(8 * kMaxThreads * kPerVector<T>) +
                                         " elements to normalise over, found " + std::to_string(args.dim));
  }
}

template <NormKind kKind>
void launch_norm(cudaStream_t stream, NormArgs args, const tm_tensor& x, const tm_tensor& out, const char* name) {
  const bool split = x.ndim == 3;
  args.x = x.data;
  args.out = out.data;
  args.x_stride = x.stride[0];
  args.out_stride = out.stride[0];
  args.heads = split ? x.shape[1] : 1;
  args.dim = x.shape[split ? 2 : 1];
  if (x.shape[0] == 0 || args.heads == 0) return;
  dispatch_float(x.dtype, "x", [&](auto zero) {
    using T = decltype(zero);
    const auto aligned = [&](const tm_tensor& tensor) { return vectors_fit(tensor, args.dim, kPerVector<T>); };
    const bool residual_aligned =
        !args.residual || (aligned_to_vector(args.residual) && args.residual_stride % kPerVector<T> == 0);
    args.vectors = aligned(x) && aligned(out) && residual_aligned;
    launch_row<T, kKind>(stream, args, x.shape[0]);
  });
  check_launch(name);
}

const float* floats(const tm_tensor& tensor) { return static_cast<const float*>(tensor.data); }

}  // namespace

void launch_rms_norm(cudaStream_t stream, const tm_rms_norm_args& args) {
  NormArgs norm{};
  norm.weight = floats(args.weight);
  norm.eps = args.eps;
  launch_norm<NormKind::kRms>(stream, norm, args.x, args.out, "rms_norm");
}

void launch_layer_norm(cudaStream_t stream, const tm_layer_norm_args& args) {
  NormArgs norm{};
  norm.weight = floats(args.weight);
  norm.bias = floats(args.bias);
  norm.eps = args.eps;
  launch_norm<NormKind::kLayer>(stream, norm, args.x, args.out, "layer_norm");
}

void launch_add_rms_norm(cudaStream_t stream, const tm_add_rms_norm_args& args) {
  NormArgs norm{};
  norm.residual = args.residual.data;
  norm.residual_stride = args.residual.stride[0];
  norm.weight = floats(args.weight);
  norm.eps = args.eps;
  launch_norm<NormKind::kAddRms>(stream, norm, args.x, args.out, "add_rms_norm");
}

}  // namespace turbomind::cuda
