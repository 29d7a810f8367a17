// SPDX-License-Identifier: Apache-2.0
//
// Attention of at most 16 rows (decode) on sm_90 and newer: a warp drives the copy engine, so that chunks of the cache
// stream through a ring of buffers without a pause between tiles, and four warps work on them as attention_decode.cuh
// says. The pool's tiles lie in memory as tensor cores read them, so a chunk is a few copies of bytes in order.
#pragma once

#include "kernels/attention_decode.cuh"
#include "kernels/attention_work.cuh"
#include "kernels/launch.cuh"
#include "kernels/wgmma.cuh"

namespace turbomind::cuda {

inline constexpr int kStreamThreads = kTileThreads + kWarp;  // the last warp copies
inline constexpr int kMergeRows = 4;                         // whose sums the warps bring together at a time

template <int kDim>
struct StreamShared {
  static constexpr int kChunkBytes128 = kTileKeys * kPanelBytes;  // a panel of a chunk
  static constexpr int kPanels = kDim / 64;
  static constexpr int kChunkBytes = kPanels * kChunkBytes128;  // of keys, or of values
  static constexpr int kStages = kDim == 64 ? 6 : 3;
  static constexpr int kBlocksPerSm = kDim == 256 ? 1 : 2;

  alignas(128) std::byte q[2][kDecodeRows * kDim * 2];
  alignas(128) std::byte k[kStages][kChunkBytes];
  alignas(128) std::byte v[kStages][kChunkBytes];
  float values[kTileWarps * kMergeRows * kDim];
  float maxima[kTileWarps * kMergeRows];
  float sums[kTileWarps * kMergeRows];
  Barrier full[kStages];
  Barrier empty[kStages];
};

// The block's tiles: every gridDim.x-th (item, kv head, part).
class StreamTiles {
 public:
  __device__ StreamTiles(const TileCall& call) : call_(call), index_(static_cast<int>(blockIdx.x)) {
    const int group = call.rows.q_heads / call.rows.kv_heads;
    const int heads = heads_of_tile(group, call.positions);
    parts_ = (group + heads - 1) / heads;
    per_item_ = call.rows.kv_heads * parts_;
    total_ = *call.items.count * per_item_;
  }

  __device__ int total() const { return total_; }

  // False: there are no more.
  __device__ bool next(Tile& tile) {
    for (; index_ < total_; index_ += static_cast<int>(gridDim.x)) {
      const AttentionItem item = call_.items.items[index_ / per_item_];
      const int kv_head = index_ % per_item_ / parts_;
      if (!make_tile<PagedKv>(call_.rows, call_.step, item, kv_head, index_ % parts_, tile)) continue;
      index_ += static_cast<int>(gridDim.x);
      return true;
    }
    return false;
  }

 private:
  const TileCall& call_;
  int index_;
  int parts_;
  int per_item_;
  int total_;
};

template <int kDim>
class StreamCopier {
 public:
  using Shared = StreamShared<kDim>;

  __device__ StreamCopier(const TileCall& call, const PagedKv& kv, Shared& shared)
      : call_(call), kv_(kv), shared_(shared), lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ void run() {
    StreamTiles tiles(call_);
    for (Tile tile; tiles.next(tile);) {
      const int block_size = kv_.layout.block_size;
      const std::byte* head = kv_.pool + kv_.layout.head(0, tile.kv_head);
      const int32_t* table = call_.step.block_table + tile.seq * call_.step.block_table_stride;
      const int first_block = tile.begin / block_size;
      const int end_block = (tile.end + block_size - 1) / block_size;
      const int per_chunk = kTileKeys / block_size;
      for (int chunk = tile.begin / kTileKeys; chunk * kTileKeys < tile.end; ++chunk) {
        const int block = chunk * per_chunk + lane_;
        const bool mine = lane_ < per_chunk && block >= first_block && block < end_block;
        copy(mine ? head + table[block] * kv_.layout.block_bytes : head, mine, static_cast<uint32_t>(block_size));
      }
    }
  }

 private:
  __device__ void copy(const std::byte* from, bool mine, uint32_t block_size) {
    const auto blocks = static_cast<uint32_t>(__popc(__ballot_sync(~0u, mine)));
    const uint32_t panel_bytes = block_size * kPanelBytes;
    Barrier& full = shared_.full[place_.stage];
    shared_.empty[place_.stage].wait(place_.parity ^ 1);
    if (lane_ == 0) full.arrive_and_expect(blocks * panel_bytes * Shared::kPanels * 2);
    __syncwarp();
    if (mine) {
      const uint32_t at = static_cast<uint32_t>(lane_) * panel_bytes;
      const uint32_t keys = shared_address(shared_.k[place_.stage]) + at;
      const uint32_t values = shared_address(shared_.v[place_.stage]) + at;
#pragma unroll
      for (int panel = 0; panel < Shared::kPanels; ++panel) {
        const std::byte* key_panel = from + panel * static_cast<int64_t>(panel_bytes);
        full.copy(keys + panel * Shared::kChunkBytes128, key_panel, panel_bytes);
        full.copy(values + panel * Shared::kChunkBytes128, key_panel + kv_.layout.value_offset, panel_bytes);
      }
    }
    place_.next();
  }

  const TileCall& call_;
  const PagedKv& kv_;
  Shared& shared_;
  const int lane_;
  Ring<Shared::kStages> place_;
};

// The four warps that compute.
template <class T, int kDim>
class StreamWorker {
 public:
  using Shared = StreamShared<kDim>;

  __device__ StreamWorker(const TileCall& call, Shared& shared)
      : call_(call),
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        own_(call.rows) {}

  __device__ void run(const Partials& partials) {
    StreamTiles tiles(call_);
    Tile tile;
    Tile following;
    bool more = tiles.next(tile);
    int buffer = 0;
    if (more) fetch(tile, buffer);
    for (; more; tile = following, buffer ^= 1) {
      wait_copies<0>();
      sync();  // the queries are there; all warps are done with the tile before
      more = tiles.next(following);
      if (more) fetch(following, buffer ^ 1);
      own_.start(tile, shared_address(shared_.q[buffer]));
      for (int chunk = tile.begin / kTileKeys * kTileKeys; chunk < tile.end; chunk += kTileKeys) work(tile, chunk);
      merge(tile, partials);
    }
  }

 private:
  __device__ static void sync() { asm volatile("bar.sync 1, %0;\n" ::"n"(kTileThreads) : "memory"); }

  __device__ void fetch(const Tile& tile, int buffer) {
    fetch_queries<T, kDim>(call_.rows, tile, shared_address(shared_.q[buffer]));
    commit_copies();
  }

  __device__ void work(const Tile& tile, int chunk) {
    const int stage = place_.stage;
    shared_.full[stage].wait(place_.parity);
    if (chunk < tile.begin || chunk + kTileKeys > tile.end) clear_unseen(tile, chunk);
    own_.step({chunk, shared_address(shared_.k[stage]), shared_address(shared_.v[stage]), nullptr, nullptr});
    __syncwarp();
    if (lane_ == 0) shared_.empty[stage].arrive();
    place_.next();
  }

  // Values of places that no row sees, among the warp's own keys: they need not be numbers, and a weight of zero does
  // not silence a NaN.
  __device__ void clear_unseen(const Tile& tile, int chunk) {
    const int row = warp_ * kWarpKeys + lane_ % kWarpKeys;
    if (chunk + row < tile.begin || chunk + row >= tile.end) {
      std::byte* values = shared_.v[place_.stage] + row * kPanelBytes;
#pragma unroll
      for (int panel = 0; panel < Shared::kPanels; ++panel) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int at = panel * Shared::kChunkBytes128 + (lane_ / kWarpKeys * 4 + i) * kChunkBytes;
          *reinterpret_cast<uint4*>(values + at) = make_uint4(0, 0, 0, 0);
        }
      }
    }
    fence_shared();  // before the copy engine fills the place again
    __syncwarp();
  }

  __device__ void merge(const Tile& tile, const Partials& partials) {
    const DecodeSums sums{shared_.values, shared_.maxima, shared_.sums, kMergeRows};
    for (int first = 0; first < tile.rows(); first += kMergeRows) {
      if (first > 0) sync();  // the rows before were read
      own_.share(tile, first, sums);
      sync();
      own_.merge(tile, first, sums, partials);
    }
  }

  const TileCall& call_;
  Shared& shared_;
  const int lane_;
  const int warp_;
  DecodeWarp<T, T, kDim> own_;
  Ring<Shared::kStages> place_;
};

template <class T, int kDim>
__global__ void __launch_bounds__(kStreamThreads, StreamShared<kDim>::kBlocksPerSm)
    attend_stream(const __grid_constant__ TileCall call, const __grid_constant__ PagedKv kv,
                  const __grid_constant__ Partials partials) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) std::byte dynamic[];
  auto& shared = *reinterpret_cast<StreamShared<kDim>*>(dynamic);
  // A captured step launches as many blocks as any step may need; the others make room at once.
  const int busy = max(1, min(static_cast<int>(gridDim.x), StreamTiles(call).total()));
  if (static_cast<int>(blockIdx.x) >= busy) return;
  if (threadIdx.x == 0) {
    for (int i = 0; i < StreamShared<kDim>::kStages; ++i) {
      shared.full[i].init(1);
      shared.empty[i].init(kTileWarps);
    }
    fence_barriers();
  }
  __syncthreads();
  if (threadIdx.x >= kTileThreads) {
    StreamCopier<kDim>(call, kv, shared).run();
    return;
  }
  StreamWorker<T, kDim>(call, shared).run(partials);
  if (call.zero_padding) zero_padding_rows<T>(call.rows, call.step, static_cast<int>(blockIdx.x), busy);
#endif
}

}  // namespace turbomind::cuda
