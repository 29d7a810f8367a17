// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>

#include "kernels/attention_warpgroup.cuh"

namespace turbomind::cuda {
namespace {

constexpr int kMaxTileHeads = 8;

template <class T, int kDim, bool kSoftcap>
void launch(cudaStream_t stream, const WarpgroupCall& call, int num_sms) {
  constexpr auto kKernel = attend_warpgroups<T, kDim, kSoftcap>;
  constexpr int kBytes = static_cast<int>(sizeof(WarpgroupShared<kDim>));
  if (cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) != cudaSuccess) {
    check_launch("attention");
  }
  const int64_t tiles = static_cast<int64_t>(call.items.capacity) * (call.rows.q_heads >> call.heads_log2);
  const auto blocks = static_cast<unsigned>(std::max<int64_t>(1, std::min<int64_t>(tiles, num_sms)));
  kKernel<<<blocks, kBlockThreads, kBytes, stream>>>(call);
}

template <class T, int kDim>
void launch_softcap(cudaStream_t stream, const WarpgroupCall& call, int num_sms) {
  if (call.rows.softcap > 0.0f) {
    launch<T, kDim, true>(stream, call, num_sms);
  } else {
    launch<T, kDim, false>(stream, call, num_sms);
  }
}

template <class T>
void launch_dims(cudaStream_t stream, const WarpgroupCall& call, int num_sms) {
  switch (call.rows.dim_k) {
    case 64:
      return launch_softcap<T, 64>(stream, call, num_sms);
    case 128:
      return launch_softcap<T, 128>(stream, call, num_sms);
    default:
      return launch_softcap<T, 256>(stream, call, num_sms);
  }
}

}  // namespace

bool warpgroups_take(const AttentionRows& rows, tm_dtype kv_dtype, int architecture) {
  const bool dims = rows.dim_k == rows.dim_v && (rows.dim_k == 64 || rows.dim_k == 128 || rows.dim_k == 256);
  return architecture == 90 && dims && (rows.dtype == TM_F16 || rows.dtype == TM_BF16) && kv_dtype == rows.dtype &&
         aligned_to_vector(rows.q) && aligned_to_vector(rows.out) && rows.q_stride % 8 == 0 && rows.out_stride % 8 == 0;
}

int warpgroup_heads(const AttentionRows& rows) {
  const int group = rows.q_heads / rows.kv_heads;
  int heads = kMaxTileHeads;
  while (group % heads != 0) heads /= 2;
  return heads;
}

void launch_attention_warpgroups(cudaStream_t stream, const TileCall& tiles, const PagedKv& kv) {
  const auto heads = static_cast<unsigned>(kBlockRows / tiles.positions);
  const WarpgroupCall call{tiles.rows, kv, tiles.step, tiles.items, std::countr_zero(heads)};
  if (call.rows.dtype == TM_F16) {
    launch_dims<__half>(stream, call, tiles.num_sms);
  } else {
    launch_dims<__nv_bfloat16>(stream, call, tiles.num_sms);
  }
  check_launch("attention");
}

}  // namespace turbomind::cuda
