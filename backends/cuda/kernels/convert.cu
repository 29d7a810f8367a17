// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/common.cuh"
#include "kernels/convert.h"

namespace turbomind::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

template <class In, class Out>
__global__ void convert_rows(const In* in, int64_t rows, int64_t cols, int64_t in_stride, Out* out,
                             int64_t out_stride) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < rows * out_stride; i += step) {
    const int64_t row = i / out_stride;
    const int64_t col = i % out_stride;
    out[i] = from_float<Out>(col < cols ? to_float(in[row * in_stride + col]) : 0.0f);
  }
}

}  // namespace

void launch_convert_rows(cudaStream_t stream, const ConvertSource& from, const ConvertTarget& to) {
  const int64_t blocks = std::clamp<int64_t>(ceil_div<int64_t>(from.rows * to.stride, kThreads), 1, kMaxBlocks);
  dispatch_float(from.dtype, "weight", [&](auto in) {
    dispatch_float(to.dtype, "activation dtype", [&](auto out) {
      convert_rows<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
          static_cast<const decltype(in)*>(from.data), from.rows, from.cols, from.stride,
          static_cast<decltype(out)*>(to.data), to.stride);
    });
  });
  check_launch("convert_rows");
}

}  // namespace turbomind::cuda
