// SPDX-License-Identifier: Apache-2.0
#include <climits>
#include <cmath>

#include "kernels/common.cuh"
#include "kernels/logits.h"

namespace turbomind::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;

struct LogprobsArgs {
  const float* logits;
  int64_t stride;
  int32_t vocab;
  const int32_t* ids;
  float* logprobs;
  int32_t* ranks;  // nullptr: not asked for
  int32_t* top_ids;
  float* top_logprobs;
  int64_t top_ids_stride;
  int64_t top_logprobs_stride;
  int32_t num_top;
};

struct Token {
  float logit;
  int id;
};

__device__ __forceinline__ bool before(Token a, Token b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

__device__ __forceinline__ Token warp_first(Token value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const Token other{__shfl_xor_sync(~0u, value.logit, offset), __shfl_xor_sync(~0u, value.id, offset)};
    if (before(other, value)) value = other;
  }
  return value;
}

// The best of the ids owner, owner + kThreads, ... that come after `last`, by the lanes of one warp.
__device__ Token next_of(const float* x, int vocab, int owner, Token last, int lane) {
  Token best{-INFINITY, INT_MAX};
  for (int id = owner + lane * kThreads; id < vocab; id += kWarp * kThreads) {
    const Token token{isnan(x[id]) ? -INFINITY : x[id], id};
    if (before(last, token) && before(token, best)) best = token;
  }
  return warp_first(best);
}

// The block's first token, for every thread.
__device__ __forceinline__ Token block_first(Token own, Token* shared) {
  own = warp_first(own);
  __syncthreads();  // the last call's readers are done
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = own;
  __syncthreads();
  static_assert(kWarps == kWarp);
  return warp_first(shared[threadIdx.x % kWarp]);
}

// A block per row. Each thread keeps the best token of its ids that was not given out yet.
__global__ void __launch_bounds__(kThreads) logprob_rows(const LogprobsArgs args) {
  __shared__ Token warp_token[kWarps];
  __shared__ double warp_sum_of[kWarps];
  __shared__ int warp_count[kWarps];
  const int64_t row = blockIdx.x;
  const float* x = args.logits + row * args.stride;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int id = min(max(args.ids[row], 0), args.vocab - 1);
  const float chosen = x[id];

  Token own{-INFINITY, INT_MAX};
  int above = 0;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < args.vocab; i += kThreads) {
    const Token token{isnan(x[i]) ? -INFINITY : x[i], i};
    if (before(token, own)) own = token;
    above += x[i] > chosen;
  }
  Token best = block_first(own, warp_token);
  float part = 0.0f;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < args.vocab; i += kThreads) part += expf(x[i] - best.logit);
  const double log_sum = best.logit + log(block_sum(static_cast<double>(part), warp_sum_of));
  above = block_sum(above, warp_count);
  if (threadIdx.x == 0) {
    args.logprobs[row] = static_cast<float>(chosen - log_sum);
    if (args.ranks) args.ranks[row] = above;
  }
  for (int j = 0; j < args.num_top; ++j) {
    if (threadIdx.x == 0) {
      args.top_ids[row * args.top_ids_stride + j] = best.id;
      args.top_logprobs[row * args.top_logprobs_stride + j] = static_cast<float>(best.logit - log_sum);
    }
    // Every warp looks, so that none runs apart from the others.
    const int owner = best.id % kThreads;
    const Token next = next_of(x, args.vocab, owner, best, lane);
    if (owner == static_cast<int>(threadIdx.x)) own = next;
    best = block_first(own, warp_token);
  }
}

}  // namespace

void launch_logprobs(cudaStream_t stream, const tm_logprobs_args& op) {
  LogprobsArgs args{};
  args.logits = static_cast<const float*>(op.logits.data);
  args.stride = op.logits.stride[0];
  args.vocab = static_cast<int32_t>(op.logits.shape[1]);
  args.ids = static_cast<const int32_t*>(op.ids.data);
  args.logprobs = static_cast<float*>(op.logprobs.data);
  args.ranks = static_cast<int32_t*>(op.ranks.data);
  if (op.top_ids.data) {
    args.top_ids = static_cast<int32_t*>(op.top_ids.data);
    args.top_logprobs = static_cast<float*>(op.top_logprobs.data);
    args.top_ids_stride = op.top_ids.stride[0];
    args.top_logprobs_stride = op.top_logprobs.stride[0];
    args.num_top = static_cast<int32_t>(op.top_ids.shape[1]);
  }
  if (op.logits.shape[0] == 0) return;
  logprob_rows<<<static_cast<unsigned>(op.logits.shape[0]), kThreads, 0, stream>>>(args);
  check_launch("logprobs");
}

}  // namespace turbomind::cuda
