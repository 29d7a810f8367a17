// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/common.cuh"
#include "kernels/kv_blocks.h"
#include "kernels/kv_layout.h"

namespace turbomind::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kIdsPerLaunch = 448;  // kernel arguments hold 4 KiB

struct Ids {
  int32_t id[kIdsPerLaunch];
};

void require_block(int32_t id, const tm_kv_pool& pool, const char* argument) {
  if (id >= 0 && id < pool.num_blocks) return;
  throw abi::Error(TM_INVALID_ARGUMENT, std::string(argument) + ": expected block ids below " +
                                            std::to_string(pool.num_blocks) + ", found " + std::to_string(id));
}

__global__ void __launch_bounds__(kThreads) copy_blocks(std::byte* pool, int64_t block_bytes, const Ids pairs) {
  const auto* from = reinterpret_cast<const uint4*>(pool + pairs.id[2 * blockIdx.y] * block_bytes);
  auto* to = reinterpret_cast<uint4*>(pool + pairs.id[2 * blockIdx.y + 1] * block_bytes);
  const int64_t units = block_bytes / static_cast<int64_t>(sizeof(uint4));
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < units; i += gridDim.x * kThreads) {
    to[i] = from[i];
  }
}

// Pairs from `begin` on that may run at once: none touches what another one writes.
int64_t independent_pairs(const int32_t* pairs, int64_t begin, int64_t end) {
  int64_t at = begin + 1;
  for (; at < end; ++at) {
    for (int64_t before = begin; before < at; ++before) {
      const bool reads = pairs[2 * at] == pairs[2 * before + 1];
      const bool writes = pairs[2 * at + 1] == pairs[2 * before + 1] || pairs[2 * at + 1] == pairs[2 * before];
      if (reads || writes) return at - begin;
    }
  }
  return at - begin;
}

// The canonical form: keys of all blocks [ids, block_size, heads, head_dim_k], values likewise, scales [ids, 2,
// block_size, heads].
struct Exchange {
  std::byte* pool;
  std::byte* canonical;
  KvLayout layout;
  int64_t num_ids;   // of the whole call
  int64_t first_id;  // of this launch
};

// The part of the canonical form for one token and head: keys, or values.
__device__ __forceinline__ std::byte* canonical_row(const Exchange& e, int64_t index, int head, int token, bool value) {
  const int64_t keys_bytes = e.num_ids * e.layout.num_heads * e.layout.keys.bytes();
  const int64_t row = (index * e.layout.block_size + token) * e.layout.num_heads + head;
  return e.canonical + (value ? keys_bytes + row * e.layout.values.row_bytes : row * e.layout.keys.row_bytes);
}

__device__ __forceinline__ float* canonical_scale(const Exchange& e, int64_t index, int head, int token, bool value) {
  const int64_t tiles = e.num_ids * e.layout.num_heads * (e.layout.keys.bytes() + e.layout.values.bytes());
  const int64_t row = ((2 * index + value) * e.layout.block_size + token) * e.layout.num_heads + head;
  return reinterpret_cast<float*>(e.canonical + tiles) + row;
}

// Blocks: (heads, ids). Rows of keys, then of values, in units that rows are whole multiples of.
template <bool kExport, class Unit>
__global__ void __launch_bounds__(kThreads) exchange_blocks(const Exchange e, const Ids ids) {
  const int head = static_cast<int>(blockIdx.x);
  const int64_t index = e.first_id + blockIdx.y;
  std::byte* stored = e.pool + e.layout.head(ids.id[blockIdx.y], head);
  for (const bool value : {false, true}) {
    const KvTile& tile = value ? e.layout.values : e.layout.keys;
    std::byte* tile_data = stored + (value ? e.layout.value_offset : 0);
    constexpr int kUnitBytes = static_cast<int>(sizeof(Unit));
    const int units = tile.row_bytes / kUnitBytes;
    for (int i = static_cast<int>(threadIdx.x); i < tile.rows * units; i += kThreads) {
      const int token = i / units;
      const int byte = i % units * kUnitBytes;
      auto* inside = reinterpret_cast<Unit*>(tile_data + tile.offset(token, byte));
      auto* outside = reinterpret_cast<Unit*>(canonical_row(e, index, head, token, value) + byte);
      if (kExport) {
        *outside = *inside;
      } else {
        *inside = *outside;
      }
    }
    if (e.layout.element_size != 1) continue;
    auto* scales = reinterpret_cast<float*>(stored + e.layout.scale_offset) + (value ? tile.rows : 0);
    for (int token = static_cast<int>(threadIdx.x); token < tile.rows; token += kThreads) {
      float* outside = canonical_scale(e, index, head, token, value);
      if (kExport) {
        *outside = scales[token];
      } else {
        scales[token] = *outside;
      }
    }
  }
}

template <bool kExport>
void launch_exchange(cudaStream_t stream, const tm_kv_pool& pool, const int32_t* block_ids, int64_t num_ids,
                     void* canonical) {
  for (int64_t i = 0; i < num_ids; ++i) require_block(block_ids[i], pool, "block_ids");
  Exchange e{static_cast<std::byte*>(pool.data), static_cast<std::byte*>(canonical), make_kv_layout(pool.spec), num_ids,
             0};
  for (; e.first_id < num_ids; e.first_id += kIdsPerLaunch) {
    const int64_t count = std::min<int64_t>(kIdsPerLaunch, num_ids - e.first_id);
    Ids ids{};
    std::copy_n(block_ids + e.first_id, count, ids.id);
    const dim3 grid(static_cast<unsigned>(e.layout.num_heads), static_cast<unsigned>(count));
    if (e.layout.keys.row_bytes % kChunkBytes == 0 && e.layout.values.row_bytes % kChunkBytes == 0) {
      exchange_blocks<kExport, uint4><<<grid, kThreads, 0, stream>>>(e, ids);
    } else {
      exchange_blocks<kExport, uint32_t><<<grid, kThreads, 0, stream>>>(e, ids);
    }
  }
  check_launch(kExport ? "export_blocks" : "import_blocks");
}

}  // namespace

void launch_kv_copy_blocks(cudaStream_t stream, const tm_kv_copy_blocks_args& args) {
  const KvLayout layout = make_kv_layout(args.kv.spec);
  for (int64_t i = 0; i < 2 * args.num_pairs; ++i) require_block(args.pairs[i], args.kv, "pairs");
  for (int64_t begin = 0; begin < args.num_pairs;) {
    const int64_t end = std::min<int64_t>(args.num_pairs, begin + kIdsPerLaunch / 2);
    const int64_t count = independent_pairs(args.pairs, begin, end);
    Ids ids{};
    std::copy_n(args.pairs + 2 * begin, 2 * count, ids.id);
    const int64_t units = layout.block_bytes / static_cast<int64_t>(sizeof(uint4));
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(units, 4 * kThreads)), static_cast<unsigned>(count));
    copy_blocks<<<grid, kThreads, 0, stream>>>(static_cast<std::byte*>(args.kv.data), layout.block_bytes, ids);
    begin += count;
  }
  check_launch("kv_copy_blocks");
}

void launch_kv_export(cudaStream_t stream, const tm_kv_pool& pool, const int32_t* block_ids, int64_t num_ids,
                      void* dst) {
  launch_exchange<true>(stream, pool, block_ids, num_ids, dst);
}

void launch_kv_import(cudaStream_t stream, const tm_kv_pool& pool, const int32_t* block_ids, int64_t num_ids,
                      const void* src) {
  // The kernel is shared with export, so it takes mutable bytes; src is only read.
  launch_exchange<false>(stream, pool, block_ids, num_ids, const_cast<void*>(src));
}

}  // namespace turbomind::cuda
