// SPDX-License-Identifier: Apache-2.0
//
// Instantiates the tile kernels for one dtype of activations; one source file per dtype includes this.
#pragma once

#include <algorithm>

#include "kernels/attention_decode.cuh"
#include "kernels/attention_work.cuh"
#include "kernels/launch.cuh"

namespace turbomind::cuda {

// Far more than run at once: the ones that wait even out the differences between items.
inline constexpr int kBlocksPerSm = 16;

// Blocks take (item, kv head, part) in turn. Attention: TileAttention or DecodeAttention, Shared its memory.
template <class T, int kMinBlocks, class Attention, class Shared, class Kv, class Source>
__global__ void __launch_bounds__(kTileThreads, kMinBlocks)
    attend_tiles(const TileCall call, const Kv kv, const Partials partials) {
  extern __shared__ std::byte dynamic[];
  auto& shared = *reinterpret_cast<Shared*>(dynamic);
  const AttentionRows& rows = call.rows;
  const int group = rows.q_heads / rows.kv_heads;
  const int heads = heads_of_tile(group, call.positions);
  const int parts = (group + heads - 1) / heads;
  const int per_item = rows.kv_heads * parts;
  const int total = *call.items.count * per_item;
  for (int index = static_cast<int>(blockIdx.x); index < total; index += static_cast<int>(gridDim.x)) {
    const AttentionItem item = call.items.items[index / per_item];
    Tile tile;
    if (!make_tile<Kv>(rows, call.step, item, index % per_item / parts, index % parts, tile)) continue;
    const Source source(kv, call.step, tile, rows);
    Attention(rows, tile, source, shared).run(partials);
  }
  if (call.zero_padding)
    zero_padding_rows<T>(rows, call.step, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
}

template <class T, int kMinBlocks, class Attention, class Shared, class Source, class Kv>
void launch_kernel(cudaStream_t stream, const TileCall& call, const Kv& kv, const Partials& partials) {
  constexpr auto kKernel = attend_tiles<T, kMinBlocks, Attention, Shared, Kv, Source>;
  constexpr int kBytes = static_cast<int>(sizeof(Shared));
  const int group = call.rows.q_heads / call.rows.kv_heads;
  const int64_t parts = ceil_div(group, heads_of_tile(group, call.positions));
  const int64_t tiles = call.items.capacity * call.rows.kv_heads * parts;
  const int64_t resident = static_cast<int64_t>(call.num_sms) * kBlocksPerSm;
  if (cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) != cudaSuccess) {
    check_launch("attention");
  }
  const auto blocks = static_cast<unsigned>(std::max<int64_t>(1, std::min(tiles, resident)));
  launch_kernel("attention", stream, dim3(blocks), kTileThreads, kBytes, kKernel, call, kv, partials);
}

template <class T, class KV, int kDim, class Source, class Kv>
void launch_tiles(cudaStream_t stream, const TileCall& call, const Kv& kv, const Partials& partials) {
  constexpr int kMinBlocks = kDim == 256 ? 2 : 3;
  if constexpr (std::is_same_v<Kv, PagedKv>) {
    if (call.splits_keys) {
      using Attention = DecodeAttention<T, KV, kDim, Source>;
      return launch_kernel<T, kMinBlocks, Attention, DecodeShared<kDim>, Source>(stream, call, kv, partials);
    }
  }
  using Attention = TileAttention<T, KV, kDim, Source>;
  launch_kernel<T, kMinBlocks, Attention, TileShared<kDim>, Source>(stream, call, kv, partials);
}

template <class T, class KV, class Source, class Kv>
void launch_dims(cudaStream_t stream, const TileCall& call, const Kv& kv, const Partials& partials) {
  const int dim = std::max(call.rows.dim_k, call.rows.dim_v);
  if (dim <= 64) {
    launch_tiles<T, KV, 64, Source>(stream, call, kv, partials);
  } else if (dim <= 128) {
    launch_tiles<T, KV, 128, Source>(stream, call, kv, partials);
  } else {
    launch_tiles<T, KV, 256, Source>(stream, call, kv, partials);
  }
}

template <class T>
void launch_paged_tiles(cudaStream_t stream, const TileCall& call, const PagedKv& kv, const Partials& partials) {
  if (kv.dtype == TM_I8) {
    launch_dims<T, int8_t, PagedSource>(stream, call, kv, partials);
  } else {
    launch_dims<T, T, PagedSource>(stream, call, kv, partials);
  }
}

template <class T>
void launch_dense_tiles(cudaStream_t stream, const TileCall& call, const DenseKv& kv) {
  launch_dims<T, T, DenseSource>(stream, call, kv, Partials{});
}

}  // namespace turbomind::cuda
