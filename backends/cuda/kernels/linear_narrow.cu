// SPDX-License-Identifier: Apache-2.0
//
// Products of few rows with a matrix: decode. Bound by the bytes of the weight, so each is read once, straight into the
// operand registers of tensor cores, one or two groups of 16 columns of the output to a block whose warps divide the
// inner dimension.
#include <algorithm>

#include "kernels/activation.cuh"
#include "kernels/launch.cuh"
#include "kernels/linear.h"
#include "kernels/mma.cuh"

namespace turbomind::cuda {
namespace {

constexpr int kGroupColumns = 16;    // columns of the output: rows of a fragment of w
constexpr int kTileRows = 8;         // rows of x of one product
constexpr int kStep = 64;            // elements of the inner dimension that a warp takes at a time
constexpr int kParts = 2;            // vectors per lane and row of w in a step
constexpr int64_t kWarpsPerSm = 16;  // wanted, so that enough bytes are on their way

struct Call {
  LinearShape shape;
  const void* x;
  const void* w;   // of the first group; plain: of both
  const void* up;  // gated: of the second group
  void* out;
  Epilogue epilogue;
  const float* up_bias;
};

// Past the caches of a multiprocessor: every byte of a weight is used once.
__device__ __forceinline__ uint4 load_weight(const uint4* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

// What a warp holds of w for one step: lane l has rows l / 4 and l / 4 + 8 of each group, and of each 32 elements of
// those the vector l % 4. Which element stands where inside a product does not matter, as x is read the same way.
template <int kGroups>
struct Weights {
  uint4 rows[kGroups][2][kParts];
};

// kTiles: of kTileRows rows of x. kGated: the first group is of gate, the second of the same columns of up.
template <class T, class Out, int kTiles, int kGroups, bool kGated>
class NarrowProduct {
 public:
  explicit __device__ NarrowProduct(const Call& call)
      : call_(call),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        warps_(static_cast<int>(blockDim.x) / kWarp),
        vectors_(static_cast<int>(call.shape.k) / kPerVector<T>),
        first_column_(static_cast<int64_t>(blockIdx.x) * (kGated ? kGroupColumns : kGroups * kGroupColumns)) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t wanted = first_column_ + (kGated ? 0 : g * kGroupColumns) + lane_ / 4 + 8 * half;
        const int64_t column = wanted < call.shape.n ? wanted : call.shape.n - 1;
        const void* w = kGated && g == 1 ? call.up : call.w;
        weights_[g][half] = reinterpret_cast<const uint4*>(static_cast<const T*>(w) + column * call.shape.w_stride);
      }
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const int64_t wanted = t * kTileRows + lane_ / 4;
      const int64_t row = wanted < call.shape.rows ? wanted : call.shape.rows - 1;
      rows_[t] = reinterpret_cast<const uint4*>(static_cast<const T*>(call.x) + row * call.shape.x_stride);
    }
  }

  __device__ void run(float4* shared) {
    constexpr int kStepVectors = kStep / kPerVector<T>;
    const int stride = warps_ * kStepVectors;
    int at = warp_ * kStepVectors + lane_ % 4;
    Weights<kGroups> even;
    Weights<kGroups> odd;
    load(even, at);
    for (; at - lane_ % 4 < vectors_; at += 2 * stride) {
      load(odd, at + stride);
      multiply(even, at);
      if (at - lane_ % 4 + stride >= vectors_) break;
      load(even, at + 2 * stride);
      multiply(odd, at + stride);
    }
    share(shared);
    finish(shared);
  }

 private:
  __device__ void load(Weights<kGroups>& to, int at) const {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int p = 0; p < kParts; ++p) {
          const int vector = at + 4 * p;
          to.rows[g][half][p] = vector < vectors_ ? load_weight(weights_[g][half] + vector) : make_uint4(0, 0, 0, 0);
        }
      }
    }
  }

  __device__ void multiply(const Weights<kGroups>& w, int at) {
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int vector = at + 4 * p;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const uint4 x = vector < vectors_ ? rows_[t][vector] : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          const uint4& low = w.rows[g][0][p];
          const uint4& high = w.rows[g][1][p];
          const uint32_t first[4] = {low.x, high.x, low.y, high.y};
          const uint32_t second[4] = {low.z, high.z, low.w, high.w};
          multiply_add<T>(sums_[g][t], first, x.x, x.y);
          multiply_add<T>(sums_[g][t], second, x.z, x.w);
        }
      }
    }
  }

  __device__ static int place(int warp, int group, int tile, int lane) {
    return ((warp * kGroups + group) * kTiles + tile) * kWarp + lane;
  }

  __device__ void share(float4* shared) const {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const float (&s)[4] = sums_[g][t];
        shared[place(warp_, g, t, lane_)] = make_float4(s[0], s[1], s[2], s[3]);
      }
    }
    __syncthreads();
  }

  __device__ float4 sum(const float4* shared, int group, int tile, int lane) const {
    float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int warp = 0; warp < warps_; ++warp) {
      const float4 part = shared[place(warp, group, tile, lane)];
      total = make_float4(total.x + part.x, total.y + part.y, total.z + part.z, total.w + part.w);
    }
    return total;
  }

  __device__ void store(int64_t row, int64_t column, float value) const {
    if (row >= call_.shape.rows || column >= call_.shape.n) return;
    static_cast<Out*>(call_.out)[row * call_.shape.out_stride + column] = from_float<Out>(value);
  }

  __device__ float biased(float value, const float* bias, int64_t column) const {
    return bias && column < call_.shape.n ? value + bias[column] : value;
  }

  // Fragments in turn over the warps. A lane has columns l / 4 and l / 4 + 8 of rows 2 (l % 4) and the next.
  __device__ void finish(const float4* shared) const {
    constexpr int kFragments = kGated ? kTiles : kGroups * kTiles;
    for (int f = warp_; f < kFragments; f += warps_) {
      const int group = kGated ? 0 : f / kTiles;
      const int tile = f % kTiles;
      const float4 first = sum(shared, group, tile, lane_);
      const float values[4] = {first.x, first.y, first.z, first.w};
      const float4 second = kGated ? sum(shared, 1, tile, lane_) : first;
      const float ups[4] = {second.x, second.y, second.z, second.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t row = tile * kTileRows + lane_ % 4 * 2 + i % 2;
        const int64_t column = first_column_ + group * kGroupColumns + lane_ / 4 + i / 2 * 8;
        float value = activate(call_.epilogue.activation, biased(values[i], call_.epilogue.bias, column));
        if constexpr (kGated) value *= biased(ups[i], call_.up_bias, column);
        store(row, column, value);
      }
    }
  }

  const Call& call_;
  const int lane_;
  const int warp_;
  const int warps_;
  const int vectors_;
  const int64_t first_column_;
  const uint4* weights_[kGroups][2];
  const uint4* rows_[kTiles];
  float sums_[kGroups][kTiles][4] = {};
};

constexpr int kMaxWarps = 16;

template <class T, class Out, int kTiles, int kGroups, bool kGated>
__global__ void __launch_bounds__(kMaxWarps* kWarp, 1) narrow_linear(const Call call) {
  extern __shared__ float4 shared[];
  NarrowProduct<T, Out, kTiles, kGroups, kGated>(call).run(shared);
}

template <class T, class Out, int kTiles, int kGroups, bool kGated>
void run_narrow(cudaStream_t stream, const Call& call, int num_sms) {
  const int64_t blocks = ceil_div<int64_t>(call.shape.n, (kGated ? 1 : kGroups) * kGroupColumns);
  const int64_t most = std::min<int64_t>(kMaxWarps, ceil_div<int64_t>(call.shape.k, kStep));
  int64_t warps = 4;
  while (2 * warps <= most && 2 * warps * blocks <= kWarpsPerSm * num_sms) warps *= 2;
  const size_t bytes = static_cast<size_t>(warps * kGroups * kTiles * kWarp) * sizeof(float4);
  launch_kernel("linear", stream, dim3(static_cast<unsigned>(blocks)), static_cast<unsigned>(warps * kWarp), bytes,
                narrow_linear<T, Out, kTiles, kGroups, kGated>, call);
}

template <class T, class Out, int kTiles, bool kGated>
void dispatch_groups(cudaStream_t stream, const Call& call, int num_sms) {
  if constexpr (!kGated) {
    // Two groups to a block would leave multiprocessors idle.
    if (call.shape.n < 2 * kGroupColumns * int64_t{num_sms}) {
      return run_narrow<T, Out, kTiles, 1, false>(stream, call, num_sms);
    }
  }
  run_narrow<T, Out, kTiles, 2, kGated>(stream, call, num_sms);
}

template <class T, class Out, bool kGated>
void dispatch_rows(cudaStream_t stream, const Call& call, int num_sms) {
  if (call.shape.rows <= kTileRows) {
    dispatch_groups<T, Out, 1, kGated>(stream, call, num_sms);
  } else {
    dispatch_groups<T, Out, 2, kGated>(stream, call, num_sms);
  }
}

template <class T>
void dispatch_out(cudaStream_t stream, const Call& call, tm_dtype out_dtype, int num_sms) {
  if (out_dtype == TM_F32) {
    dispatch_rows<T, float, false>(stream, call, num_sms);
  } else {
    dispatch_rows<T, T, false>(stream, call, num_sms);
  }
}

}  // namespace

void launch_narrow_linear(cudaStream_t stream, const LinearShape& shape, const void* x, const void* w, void* out,
                          tm_dtype dtype, tm_dtype out_dtype, const Epilogue& epilogue, int num_sms) {
  const Call call{shape, x, w, nullptr, out, epilogue, nullptr};
  if (dtype == TM_F16) {
    dispatch_out<__half>(stream, call, out_dtype, num_sms);
  } else {
    dispatch_out<__nv_bfloat16>(stream, call, out_dtype, num_sms);
  }
}

void launch_narrow_gated_linear(cudaStream_t stream, const LinearShape& shape, const void* x, const GatedWeights& w,
                                void* out, tm_dtype dtype, tm_activation_kind activation, int num_sms) {
  const Call call{shape, x, w.gate, w.up, out, {w.gate_bias, activation}, w.up_bias};
  if (dtype == TM_F16) {
    dispatch_rows<__half, __half, true>(stream, call, num_sms);
  } else {
    dispatch_rows<__nv_bfloat16, __nv_bfloat16, true>(stream, call, num_sms);
  }
}

}  // namespace turbomind::cuda
