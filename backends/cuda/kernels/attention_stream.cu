// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/attention_stream.cuh"

namespace turbomind::cuda {
namespace {

template <class T, int kDim>
void launch(cudaStream_t stream, const TileCall& call, const PagedKv& kv, const Partials& partials) {
  constexpr auto kKernel = attend_stream<T, kDim>;
  constexpr int kBytes = static_cast<int>(sizeof(StreamShared<kDim>));
  if (cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) != cudaSuccess) {
    check_launch("attention");
  }
  const int group = call.rows.q_heads / call.rows.kv_heads;
  const int64_t parts = ceil_div(group, heads_of_tile(group, call.positions));
  const int64_t tiles = call.items.capacity * call.rows.kv_heads * parts;
  const int64_t resident = int64_t{call.num_sms} * StreamShared<kDim>::kBlocksPerSm;
  const auto blocks = static_cast<unsigned>(std::max<int64_t>(1, std::min(tiles, resident)));
  launch_kernel("attention", stream, dim3(blocks), kStreamThreads, kBytes, kKernel, call, kv, partials);
}

template <class T>
void launch_dims(cudaStream_t stream, const TileCall& call, const PagedKv& kv, const Partials& partials) {
  switch (call.rows.dim_k) {
    case 64:
      return launch<T, 64>(stream, call, kv, partials);
    case 128:
      return launch<T, 128>(stream, call, kv, partials);
    default:
      return launch<T, 256>(stream, call, kv, partials);
  }
}

}  // namespace

bool stream_takes(const AttentionRows& rows, const PagedKv& kv, int architecture) {
  const bool dims = rows.dim_k == rows.dim_v && (rows.dim_k == 64 || rows.dim_k == 128 || rows.dim_k == 256);
  return architecture >= 90 && dims && kv.dtype == rows.dtype && kv.layout.keys.swizzled && kv.layout.values.swizzled;
}

void launch_attention_stream(cudaStream_t stream, const TileCall& call, const PagedKv& kv, const Partials& partials) {
  if (call.rows.dtype == TM_F16) {
    launch_dims<__half>(stream, call, kv, partials);
  } else {
    launch_dims<__nv_bfloat16>(stream, call, kv, partials);
  }
}

}  // namespace turbomind::cuda
