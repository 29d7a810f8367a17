// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/common.cuh"
#include "kernels/spread.h"

namespace turbomind::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 32;  // host memory answers slowly; more readers do not speed it up

// Blocks: (words, parts).
__global__ void __launch_bounds__(kThreads) spread_words(const Spread spread) {
  const SpreadPart& part = spread.parts[blockIdx.y];
  const int64_t words = part.rows * part.cols;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
#pragma unroll 4
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < words; i += step) {
    part.to[i / part.cols * part.to_stride + i % part.cols] = part.from[i];
  }
}

}  // namespace

void launch_spread(cudaStream_t stream, const Spread& spread) {
  int64_t most = 0;
  for (int i = 0; i < spread.num_parts; ++i) most = std::max(most, spread.parts[i].rows * spread.parts[i].cols);
  if (most == 0) return;
  const int64_t blocks = std::min(kMaxBlocks, ceil_div<int64_t>(most, kThreads));
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(spread.num_parts));
  spread_words<<<grid, kThreads, 0, stream>>>(spread);
  check_launch("plan update");
}

}  // namespace turbomind::cuda
