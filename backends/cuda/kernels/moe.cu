// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/common.cuh"
#include "kernels/moe.h"

namespace turbomind::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRouteWarps = 4;

struct RouteArgs {
  const float* logits;
  const float* bias;  // nullptr: none
  int32_t* ids;
  float* weights;
  int64_t logits_stride;
  int64_t ids_stride;
  int64_t weights_stride;
  int64_t tokens;
  int32_t experts;
  int32_t top_k;
  bool sigmoid;
  bool renormalize;
  float scaling;
};

// Scores of one token's experts in shared memory.
__device__ void score_experts(const RouteArgs& args, const float* logits, float* scores, int lane) {
  if (args.sigmoid) {
    for (int e = lane; e < args.experts; e += kWarp) scores[e] = 1.0f / (1.0f + expf(-logits[e]));
    return;
  }
  float largest = -INFINITY;
  for (int e = lane; e < args.experts; e += kWarp) largest = fmaxf(largest, logits[e]);
  largest = warp_max(largest);
  float total = 0.0f;
  for (int e = lane; e < args.experts; e += kWarp) {
    scores[e] = expf(logits[e] - largest);
    total += scores[e];
  }
  total = warp_sum(total);
  for (int e = lane; e < args.experts; e += kWarp) scores[e] /= total;
}

// The best expert of the warp's lanes that is not taken yet, ties to the lower one. NaN counts as -infinity.
__device__ int take_best(const RouteArgs& args, const float* scores, uint32_t& taken, int lane) {
  float best_key = -INFINITY;
  int best = kMaxExperts;
  for (int i = 0; lane + i * kWarp < args.experts; ++i) {
    if (taken >> i & 1u) continue;
    const int e = lane + i * kWarp;
    float key = args.bias ? scores[e] + args.bias[e] : scores[e];
    if (isnan(key)) key = -INFINITY;
    if (key > best_key || best == kMaxExperts) {
      best_key = key;
      best = e;
    }
  }
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const float key = __shfl_xor_sync(~0u, best_key, offset);
    const int other = __shfl_xor_sync(~0u, best, offset);
    if (key > best_key || (key == best_key && other < best)) {
      best_key = key;
      best = other;
    }
  }
  if (best % kWarp == lane) taken |= 1u << (best / kWarp);
  return best;
}

// A warp per token.
__global__ void __launch_bounds__(kRouteWarps* kWarp) route(const RouteArgs args) {
  extern __shared__ float shared[];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kRouteWarps + warp;
  if (token >= args.tokens) return;
  float* scores = shared + warp * args.experts;
  score_experts(args, args.logits + token * args.logits_stride, scores, lane);
  __syncwarp();
  int32_t* ids = args.ids + token * args.ids_stride;
  float* weights = args.weights + token * args.weights_stride;
  uint32_t taken = 0;
  float total = 0.0f;
  for (int j = 0; j < args.top_k; ++j) {
    const int expert = take_best(args, scores, taken, lane);
    total += scores[expert];
    if (lane == 0) ids[j] = expert;
  }
  __syncwarp();
  const float factor = args.renormalize ? args.scaling / total : args.scaling;
  for (int j = lane; j < args.top_k; j += kWarp) weights[j] = scores[ids[j]] * factor;
}

// Pair p is choice p % top_k of token p / top_k.
struct PermuteArgs {
  const int32_t* ids;
  int32_t* counts;    // [num_experts]
  int32_t* offsets;   // [num_experts + 1]
  int32_t* position;  // [tokens, top_k]
  int64_t ids_stride;
  int64_t position_stride;
  int64_t pairs;
  int32_t top_k;
  int32_t num_experts;

  __device__ int expert(int64_t pair) const { return ids[pair / top_k * ids_stride + pair % top_k]; }
};

// A block per expert: how many pairs chose it.
__global__ void __launch_bounds__(kThreads) count_pairs(const PermuteArgs args) {
  __shared__ int shared[kThreads / kWarp];
  int count = 0;
  for (int64_t pair = threadIdx.x; pair < args.pairs; pair += kThreads) {
    count += args.expert(pair) == static_cast<int>(blockIdx.x);
  }
  count = block_sum(count, shared);
  if (threadIdx.x == 0) args.counts[blockIdx.x] = count;
}

// A block per expert: rows for its pairs, in order of the pairs.
__global__ void __launch_bounds__(kThreads) place_pairs(const PermuteArgs args) {
  __shared__ int shared[kThreads / kWarp];
  const int expert = static_cast<int>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  int before = 0;
  for (int e = static_cast<int>(threadIdx.x); e < expert; e += kThreads) before += args.counts[e];
  int next = block_sum(before, shared);
  if (threadIdx.x == 0) {
    args.offsets[expert] = next;
    if (expert == args.num_experts - 1) args.offsets[expert + 1] = next + args.counts[expert];
  }
  for (int64_t begin = 0; begin < args.pairs; begin += kThreads) {
    const int64_t pair = begin + threadIdx.x;
    const bool mine = pair < args.pairs && args.expert(pair) == expert;
    const unsigned votes = __ballot_sync(~0u, mine);
    __syncthreads();
    if (lane == 0) shared[warp] = __popc(votes);
    __syncthreads();
    int row = next + __popc(votes & ((1u << lane) - 1u));
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) row += shared[w];
      next += shared[w];
    }
    if (mine) args.position[pair / args.top_k * args.position_stride + pair % args.top_k] = row;
  }
}

struct MoveArgs {
  const void* x;
  void* out;
  const int32_t* position;
  const float* weights;  // combine only
  int64_t x_stride;
  int64_t out_stride;
  int64_t position_stride;
  int64_t weights_stride;
  int64_t tokens;
  int64_t cols;
  int32_t top_k;
};

template <class T, int N>
__global__ void __launch_bounds__(kThreads) spread_rows(const MoveArgs args) {
  const int64_t col = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (col >= args.cols) return;
  for (int64_t token = blockIdx.y; token < args.tokens; token += gridDim.y) {
    const auto* from = static_cast<const T*>(args.x) + token * args.x_stride + col;
    const auto x = *reinterpret_cast<const Pack<T, N>*>(from);
    for (int j = 0; j < args.top_k; ++j) {
      const int64_t row = args.position[token * args.position_stride + j];
      *reinterpret_cast<Pack<T, N>*>(static_cast<T*>(args.out) + row * args.out_stride + col) = x;
    }
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) combine_rows(const MoveArgs args) {
  const int64_t col = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (col >= args.cols) return;
  for (int64_t token = blockIdx.y; token < args.tokens; token += gridDim.y) {
    float sum[N] = {};
    for (int j = 0; j < args.top_k; ++j) {
      const int64_t row = args.position[token * args.position_stride + j];
      const float weight = args.weights[token * args.weights_stride + j];
      const auto* from = static_cast<const T*>(args.x) + row * args.x_stride + col;
      const auto x = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] = fmaf(weight, to_float(x.v[i]), sum[i]);
    }
    Pack<T, N> y;
#pragma unroll
    for (int i = 0; i < N; ++i) y.v[i] = from_float<T>(sum[i]);
    *reinterpret_cast<Pack<T, N>*>(static_cast<T*>(args.out) + token * args.out_stride + col) = y;
  }
}

// Calls launch(kernel width as a constant) with whole vectors where rows allow it.
template <class T, class Launch>
void launch_columns(const MoveArgs& args, Launch&& launch) {
  constexpr int kCount = kPerVector<T>;
  const bool vectors = aligned_to_vector(args.x) && aligned_to_vector(args.out) && args.x_stride % kCount == 0 &&
                       args.out_stride % kCount == 0 && args.cols % kCount == 0;
  const auto grid = [&](int width) {
    return dim3(static_cast<unsigned>(ceil_div<int64_t>(args.cols, static_cast<int64_t>(width) * kThreads)),
                grid_y(args.tokens));
  };
  if (vectors) {
    launch(std::integral_constant<int, kCount>{}, grid(kCount));
  } else {
    launch(std::integral_constant<int, 1>{}, grid(1));
  }
}

}  // namespace

void launch_moe_route(cudaStream_t stream, const tm_moe_route_args& op) {
  RouteArgs args{};
  args.logits = static_cast<const float*>(op.logits.data);
  args.bias = static_cast<const float*>(op.bias.data);
  args.ids = static_cast<int32_t*>(op.expert_ids.data);
  args.weights = static_cast<float*>(op.weights.data);
  args.logits_stride = op.logits.stride[0];
  args.ids_stride = op.expert_ids.stride[0];
  args.weights_stride = op.weights.stride[0];
  args.tokens = op.logits.shape[0];
  args.experts = static_cast<int32_t>(op.logits.shape[1]);
  args.top_k = op.top_k;
  args.sigmoid = op.score == TM_ROUTE_SIGMOID;
  args.renormalize = op.renormalize != 0;
  args.scaling = op.scaling;
  if (args.tokens == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(args.tokens, kRouteWarps));
  const size_t shared = static_cast<size_t>(kRouteWarps) * static_cast<size_t>(args.experts) * sizeof(float);
  route<<<blocks, kRouteWarps * kWarp, shared, stream>>>(args);
  check_launch("moe_route");
}

void launch_moe_permute(cudaStream_t stream, const tm_moe_permute_args& op, int32_t* counts) {
  PermuteArgs args{};
  args.ids = static_cast<const int32_t*>(op.expert_ids.data);
  args.counts = counts;
  args.offsets = static_cast<int32_t*>(op.expert_offsets.data);
  args.position = static_cast<int32_t*>(op.position.data);
  args.ids_stride = op.expert_ids.stride[0];
  args.position_stride = op.position.stride[0];
  args.top_k = static_cast<int32_t>(op.expert_ids.shape[1]);
  args.pairs = op.expert_ids.shape[0] * args.top_k;
  args.num_experts = op.num_experts;
  const auto experts = static_cast<unsigned>(op.num_experts);
  count_pairs<<<experts, kThreads, 0, stream>>>(args);
  place_pairs<<<experts, kThreads, 0, stream>>>(args);
  MoveArgs move{};
  move.x = op.x.data;
  move.out = op.out.data;
  move.position = args.position;
  move.x_stride = op.x.stride[0];
  move.out_stride = op.out.stride[0];
  move.position_stride = args.position_stride;
  move.tokens = op.x.shape[0];
  move.cols = op.x.shape[1];
  move.top_k = args.top_k;
  if (move.tokens > 0 && move.cols > 0) {
    dispatch_float(op.x.dtype, "x", [&](auto zero) {
      using T = decltype(zero);
      launch_columns<T>(
          move, [&](auto width, dim3 grid) { spread_rows<T, width.value><<<grid, kThreads, 0, stream>>>(move); });
    });
  }
  check_launch("moe_permute");
}

void launch_moe_combine(cudaStream_t stream, const tm_moe_combine_args& op) {
  MoveArgs args{};
  args.x = op.x.data;
  args.out = op.out.data;
  args.position = static_cast<const int32_t*>(op.position.data);
  args.weights = static_cast<const float*>(op.weights.data);
  args.x_stride = op.x.stride[0];
  args.out_stride = op.out.stride[0];
  args.position_stride = op.position.stride[0];
  args.weights_stride = op.weights.stride[0];
  args.tokens = op.out.shape[0];
  args.cols = op.out.shape[1];
  args.top_k = static_cast<int32_t>(op.position.shape[1]);
  if (args.tokens == 0 || args.cols == 0) return;
  dispatch_float(op.out.dtype, "out", [&](auto zero) {
    using T = decltype(zero);
    launch_columns<T>(
        args, [&](auto width, dim3 grid) { combine_rows<T, width.value><<<grid, kThreads, 0, stream>>>(args); });
  });
  check_launch("moe_combine");
}

}  // namespace turbomind::cuda
