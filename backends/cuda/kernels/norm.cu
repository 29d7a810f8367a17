// SPDX-License-Identifier: Apache-2.0
//
// Norms: rows in turn over blocks that keep the weights in registers, as they do a row's elements between the reduction
// and the store; the next rows are on their way meanwhile, each thread's elements to a ring of its own in shared
// memory. Which thread sums what depends on the width only, so a row's bits do not depend on its place, its alignment
// or the other rows.
#include <algorithm>

#include "kernels/launch.cuh"
#include "kernels/mma.cuh"
#include "kernels/norm.h"

namespace turbomind::cuda {
namespace {

constexpr int kMaxThreads = 512;
constexpr size_t kDefaultSharedBytes = 47 << 10;  // what a block may have without asking, less its sums
constexpr int64_t kMaxBlocks = 1056;              // eight for each multiprocessor of the largest GPUs

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
  int64_t parts;  // of all rows
  int64_t dim;
  float eps;
  bool vectors;  // every row, the weights and the bias start and end on 16 bytes
};

// kPerVector<T> elements from `index` on; those past the end are zero.
template <class T>
__device__ __forceinline__ Pack<T, kPerVector<T>> load_group(const T* row, int64_t index, int64_t dim, bool vectors) {
  constexpr int kCount = kPerVector<T>;
  if (vectors && index < dim) return *reinterpret_cast<const Pack<T, kCount>*>(row + index);
  Pack<T, kCount> pack;
#pragma unroll
  for (int i = 0; i < kCount; ++i) pack.v[i] = index + i < dim ? row[index + i] : from_float<T>(0.0f);
  return pack;
}

template <class T>
__device__ __forceinline__ void store_group(T* row, int64_t index, int64_t dim, bool vectors,
                                            const float (&x)[kPerVector<T>]) {
  constexpr int kCount = kPerVector<T>;
  Pack<T, kCount> pack;
#pragma unroll
  for (int i = 0; i < kCount; ++i) pack.v[i] = from_float<T>(x[i]);
  if (vectors) {
    if (index < dim) *reinterpret_cast<Pack<T, kCount>*>(row + index) = pack;
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (index + i < dim) row[index + i] = pack.v[i];
  }
}

// As many floats of a weight or bias.
template <int kCount>
__device__ __forceinline__ void load_floats(const float* from, int64_t index, int64_t dim, bool vectors,
                                            float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const Pack<float, 4> pack = load_group(from, index + i, dim, vectors);
#pragma unroll
    for (int j = 0; j < 4; ++j) x[i + j] = pack.v[j];
  }
}

template <class T>
__device__ __forceinline__ T* row_of(void* data, int64_t stride, const NormArgs& args, int64_t part) {
  if (args.heads == 1) return static_cast<T*>(data) + part * stride;  // a division costs as much as all the rest
  return static_cast<T*>(data) + part / args.heads * stride + part % args.heads * args.dim;
}

enum class NormKind { kRms, kAddRms, kLayer };

// Rows on their way to a thread: as many as fit beside those of the other blocks of a multiprocessor.
constexpr int stages_for(int groups) { return groups <= 2 ? 2 : (groups <= 4 ? 1 : 0); }

// Vectors of a thread's ring.
constexpr int ring_vectors(NormKind kind, int groups) {
  return stages_for(groups) * groups * (kind == NormKind::kAddRms ? 2 : 1);
}

// kGroups vectors of a row per thread stay in registers.
template <class T, NormKind kKind, int kGroups>
class RowNorm {
 public:
  static constexpr int kStages = stages_for(kGroups);

  // ring: [ring_vectors()][blockDim.x]
  __device__ RowNorm(const NormArgs& args, float* shared, uint4* ring) : args_(args), shared_(shared), ring_(ring) {
    if constexpr (kKeepWeights) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) load_floats(args.weight, index(g), args.dim, args.vectors, weights_[g]);
    }
  }

  // Sends for a row, to a stage of the ring that has been taken; for nothing behind the last row.
  __device__ void fetch(int64_t part, int stage) {
    if constexpr (kStages == 0) return;
    if (args_.vectors && part < args_.parts) {
      fetch_row(x_row(part), stage, 0);
      if constexpr (kAdds) fetch_row(residual_row(part), stage, kGroups);
    }
    commit_copies();
  }

  // The row in `stage`; then `next` is on its way there.
  __device__ void run(int64_t part, int64_t next, int stage) {
    take(part, stage);
    fetch(next, stage);
    float sum = 0.0f;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) sum += kKind == NormKind::kLayer ? x_[g][i] : x_[g][i] * x_[g][i];
    }
    sum = block_sum(sum, shared_);
    const float mean = kKind == NormKind::kLayer ? sum / static_cast<float>(args_.dim) : 0.0f;
    if constexpr (kKind == NormKind::kLayer) sum = squares_around(mean);
    store(part, mean, rsqrtf(sum / static_cast<float>(args_.dim) + args_.eps));
  }

 private:
  static constexpr int kCount = kPerVector<T>;
  static constexpr bool kKeepWeights = kGroups * kCount <= 16;  // more would not fit the registers
  static constexpr bool kAdds = kKind == NormKind::kAddRms;

  __device__ static int64_t index(int group) {
    return (group * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kCount;
  }

  __device__ const T* x_row(int64_t part) const {
    return row_of<const T>(const_cast<void*>(args_.x), args_.x_stride, args_, part);
  }
  __device__ T* residual_row(int64_t part) const {
    return row_of<T>(args_.residual, args_.residual_stride, args_, part);
  }

  __device__ uint4* slot(int stage, int vector) const {
    constexpr int kVectors = kGroups * (kAdds ? 2 : 1);
    return ring_ + (stage * kVectors + vector) * static_cast<int>(blockDim.x) + threadIdx.x;
  }

  __device__ void fetch_row(const T* row, int stage, int first) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (index(g) < args_.dim) copy_async(shared_address(slot(stage, first + g)), row + index(g), true);
    }
  }

  __device__ Pack<T, kCount> taken(const T* row, int group, int stage, int first) const {
    if (kStages == 0 || !args_.vectors) return load_group(row, index(group), args_.dim, args_.vectors);
    if (index(group) < args_.dim) return *reinterpret_cast<const Pack<T, kCount>*>(slot(stage, first + group));
    return {};
  }

  __device__ void take(int64_t part, int stage) {
    // A thread reads what it has sent for itself: nobody else has to be waited for.
    if constexpr (kStages > 0) wait_copies<kStages - 1>();
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const Pack<T, kCount> x = taken(x_row(part), g, stage, 0);
#pragma unroll
      for (int i = 0; i < kCount; ++i) x_[g][i] = to_float(x.v[i]);
      if constexpr (kAdds) {
        const Pack<T, kCount> residual = taken(residual_row(part), g, stage, kGroups);
#pragma unroll
        for (int i = 0; i < kCount; ++i) x_[g][i] = to_float(from_float<T>(x_[g][i] + to_float(residual.v[i])));
      }
    }
    if constexpr (kAdds) {
      T* residual = residual_row(part);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) store_group(residual, index(g), args_.dim, args_.vectors, x_[g]);
    }
  }

  __device__ float squares_around(float mean) {
    float squares = 0.0f;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const float d = index(g) + i < args_.dim ? x_[g][i] - mean : 0.0f;
        squares += d * d;
      }
    }
    return block_sum(squares, shared_);
  }

  __device__ void store(int64_t part, float mean, float factor) {
    T* out = row_of<T>(args_.out, args_.out_stride, args_, part);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      float (&weights)[kCount] = weights_[kKeepWeights ? g : 0];
      if constexpr (!kKeepWeights) load_floats(args_.weight, index(g), args_.dim, args_.vectors, weights);
      float bias[kCount] = {};
      if (kKind == NormKind::kLayer && args_.bias) load_floats(args_.bias, index(g), args_.dim, args_.vectors, bias);
#pragma unroll
      for (int i = 0; i < kCount; ++i) x_[g][i] = (x_[g][i] - mean) * factor * weights[i] + bias[i];
      store_group(out, index(g), args_.dim, args_.vectors, x_[g]);
    }
  }

  const NormArgs& args_;
  float* shared_;
  uint4* ring_;
  float x_[kGroups][kCount];
  float weights_[kKeepWeights ? kGroups : 1][kCount];
};

template <class T, NormKind kKind, int kGroups>
__global__ void __launch_bounds__(kMaxThreads) norm_rows(const NormArgs args) {
  __shared__ float shared[kMaxThreads / kWarp];
  extern __shared__ uint4 ring[];
  using Norm = RowNorm<T, kKind, kGroups>;
  Norm norm(args, shared, ring);
  const int64_t step = gridDim.x;
  const int64_t ahead = Norm::kStages * step;
  for (int stage = 0; stage < Norm::kStages; ++stage) norm.fetch(blockIdx.x + stage * step, stage);
  int stage = 0;
  for (int64_t part = blockIdx.x; part < args.parts; part += step) {
    norm.run(part, part + ahead, stage);
    if (++stage >= Norm::kStages) stage = 0;
  }
}

bool vectors_fit(const tm_tensor& tensor, int64_t dim, int64_t per_vector) {
  return aligned_to_vector(tensor.data) && tensor.stride[0] % per_vector == 0 && dim % per_vector == 0;
}

template <class T, NormKind kKind, int kGroups>
void launch_groups(cudaStream_t stream, const NormArgs& args, unsigned threads) {
  constexpr auto kKernel = norm_rows<T, kKind, kGroups>;
  constexpr size_t kPerThread = ring_vectors(kKind, kGroups) * sizeof(uint4);
  const size_t bytes = kPerThread * threads;
  if (bytes > kDefaultSharedBytes) {
    check_cuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
               "cudaFuncSetAttribute");
  }
  const dim3 blocks(static_cast<unsigned>(std::min(args.parts, kMaxBlocks)));
  launch_kernel("norm", stream, blocks, threads, bytes, kKernel, args);
}

template <class T, NormKind kKind>
void launch_row(cudaStream_t stream, const NormArgs& args) {
  const int64_t groups = ceil_div<int64_t>(args.dim, kPerVector<T>);
  // Two vectors to a thread where that leaves whole warps: fewer threads wait for each other.
  const int64_t wanted = groups >= 4 * kWarp ? ceil_div<int64_t>(groups, 2) : groups;
  const int64_t threads = std::min<int64_t>(ceil_div<int64_t>(wanted, kWarp) * kWarp, kMaxThreads);
  const int64_t per_thread = ceil_div(groups, threads);
  const auto block = static_cast<unsigned>(threads);
  if (per_thread == 1) {
    launch_groups<T, kKind, 1>(stream, args, block);
  } else if (per_thread == 2) {
    launch_groups<T, kKind, 2>(stream, args, block);
  } else if (per_thread <= 4) {
    launch_groups<T, kKind, 4>(stream, args, block);
  } else if (per_thread <= 8) {
    launch_groups<T, kKind, 8>(stream, args, block);
  } else {
    throw abi::Error(TM_UNSUPPORTED, "x: expected at most " + std::to_string(8 * kMaxThreads * kPerVector<T>) +
                                         " elements to normalise over, found " + std::to_string(args.dim));
  }
}

template <NormKind kKind>
void launch_norm(cudaStream_t stream, NormArgs args, const tm_tensor& x, const tm_tensor& out) {
  const bool split = x.ndim == 3;
  args.x = x.data;
  args.out = out.data;
  args.x_stride = x.stride[0];
  args.out_stride = out.stride[0];
  args.heads = split ? x.shape[1] : 1;
  args.dim = x.shape[split ? 2 : 1];
  args.parts = x.shape[0] * args.heads;
  if (args.parts == 0) return;
  dispatch_float(x.dtype, "x", [&](auto zero) {
    using T = decltype(zero);
    const auto aligned = [&](const tm_tensor& tensor) { return vectors_fit(tensor, args.dim, kPerVector<T>); };
    const bool residual_aligned =
        !args.residual || (aligned_to_vector(args.residual) && args.residual_stride % kPerVector<T> == 0);
    args.vectors = aligned(x) && aligned(out) && residual_aligned && aligned_to_vector(args.weight) &&
                   aligned_to_vector(args.bias);
    launch_row<T, kKind>(stream, args);
  });
}

const float* floats(const tm_tensor& tensor) { return static_cast<const float*>(tensor.data); }

}  // namespace

void launch_rms_norm(cudaStream_t stream, const tm_rms_norm_args& args) {
  NormArgs norm{};
  norm.weight = floats(args.weight);
  norm.eps = args.eps;
  launch_norm<NormKind::kRms>(stream, norm, args.x, args.out);
}

void launch_layer_norm(cudaStream_t stream, const tm_layer_norm_args& args) {
  NormArgs norm{};
  norm.weight = floats(args.weight);
  norm.bias = floats(args.bias);
  norm.eps = args.eps;
  launch_norm<NormKind::kLayer>(stream, norm, args.x, args.out);
}

void launch_add_rms_norm(cudaStream_t stream, const tm_add_rms_norm_args& args) {
  NormArgs norm{};
  norm.residual = args.residual.data;
  norm.residual_stride = args.residual.stride[0];
  norm.weight = floats(args.weight);
  norm.eps = args.eps;
  launch_norm<NormKind::kAddRms>(stream, norm, args.x, args.out);
}

}  // namespace turbomind::cuda
