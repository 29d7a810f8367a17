// SPDX-License-Identifier: Apache-2.0
//
// Prefill attention of sm_90a: FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608) over a paged cache. A block holds
// one warp that copies keys and values, and two warpgroups of 64 query rows each. Scores of the next keys are
// multiplied while the last ones are weighed, and the warpgroups take turns on the tensor cores. The pool's tiles lie
// in memory as tensor cores read them, so the copies need no tensor map.
#pragma once

#include <cmath>

#include "kernels/attention.h"
#include "kernels/mma.cuh"
#include "kernels/wgmma.cuh"

namespace turbomind::cuda {

inline constexpr int kGroupRows = 64;  // query rows of a warpgroup
inline constexpr int kNumGroups = 2;   // that multiply
inline constexpr int kBlockRows = kGroupRows * kNumGroups;
inline constexpr int kMultiplierThreads = kNumGroups * kWarpgroup;
inline constexpr int kBlockThreads = kMultiplierThreads + kWarpgroup;
inline constexpr float kLogTwoE = 1.4426950408889634f;

template <int kDim>
struct WarpgroupShape {
  static constexpr int kKeys = kDim == 256 ? 64 : 128;  // positions at a time
  static constexpr int kStages = 2;
  static constexpr int kQueryBuffers = kDim == 256 ? 1 : 2;
  static constexpr int kPanels = kDim / 64;
  static constexpr int kPanelBytes128 = kKeys * kPanelBytes;  // one panel of keys or values
  static constexpr int kTileBytes = kPanels * kPanelBytes128;
  static constexpr int kQueryBytes = kGroupRows * kDim * 2;  // of one warpgroup
};

template <int kDim>
struct WarpgroupShared {
  using Shape = WarpgroupShape<kDim>;
  alignas(kSwizzleAtomBytes) std::byte q[Shape::kQueryBuffers][kNumGroups][Shape::kQueryBytes];
  alignas(kSwizzleAtomBytes) std::byte k[Shape::kStages][Shape::kTileBytes];
  alignas(kSwizzleAtomBytes) std::byte v[Shape::kStages][Shape::kTileBytes];
  Barrier keys_full[Shape::kStages];
  Barrier keys_empty[Shape::kStages];
  Barrier values_full[Shape::kStages];
  Barrier values_empty[Shape::kStages];
};

// Named barriers; 0 is __syncthreads.
enum NamedBarrier : int { kTurn = 1, kGroup = kTurn + kNumGroups, kBoth = kGroup + kNumGroups };

struct WarpgroupCall {
  AttentionRows rows;
  PagedKv kv;
  StepView step;
  AttentionItems items;  // of at most kBlockRows / heads query positions
  int heads;             // query heads of a tile, all of one kv head; a power of two
};

// One item and `heads` query heads: row r of the tile is query position r / heads and head r % heads.
struct WarpgroupTile {
  int seq;
  int token;     // row of the call of the first query position
  int rows;      // positions x heads
  int position;  // of the first query row in its context
  int head;      // the first one
  int begin;     // first visible position
  int end;       // past the last one
};

__device__ __forceinline__ WarpgroupTile make_warpgroup_tile(const WarpgroupCall& call, int index) {
  const int parts = call.rows.q_heads / call.heads;
  const AttentionItem item = call.items.items[index / parts];
  const int first = call.step.cu_seqlens_q[item.seq];
  const int length = call.step.cu_seqlens_q[item.seq + 1] - first;
  WarpgroupTile tile;
  tile.seq = item.seq;
  tile.token = first + item.first;
  tile.rows = item.positions * call.heads;
  tile.position = call.step.context_lens[item.seq] - length + item.first;
  tile.head = index % parts * call.heads;
  tile.begin = call.rows.window > 0 ? max(0, tile.position - call.rows.window + 1) : 0;
  tile.end = tile.position + item.positions;
  return tile;
}

// A stage of a ring of buffers and the parity of its barriers.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// The warp that copies keys and values, blocks of the pool lane by lane, last keys first.
template <int kDim>
class Copier {
 public:
  using Shape = WarpgroupShape<kDim>;

  __device__ Copier(const WarpgroupCall& call, WarpgroupShared<kDim>& shared)
      : call_(call), shared_(shared), lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ void run(const WarpgroupTile& tile) {
    const int block_size = call_.kv.layout.block_size;
    const int group = call_.rows.q_heads / call_.rows.kv_heads;
    const std::byte* head = call_.kv.pool + call_.kv.layout.head(0, tile.head / group);
    const int32_t* table = call_.step.block_table + tile.seq * call_.step.block_table_stride;
    const int first_block = tile.begin / block_size;
    const int end_block = (tile.end + block_size - 1) / block_size;
    const int per_tile = Shape::kKeys / block_size;
    const int first_tile = tile.begin / Shape::kKeys;
    for (int n = (tile.end - 1) / Shape::kKeys; n >= first_tile; --n) {
      const int block = n * per_tile + lane_;
      const bool mine = lane_ < per_tile && block >= first_block && block < end_block;
      const std::byte* from = mine ? head + table[block] * call_.kv.layout.block_bytes : head;
      const auto blocks = static_cast<uint32_t>(__popc(__ballot_sync(~0u, mine)));
      const uint32_t bytes = blocks * static_cast<uint32_t>(block_size) * kDim * 2;
      copy(shared_.keys_full[ring_.stage], shared_.keys_empty[ring_.stage], shared_.k[ring_.stage], from, mine, bytes);
      copy(shared_.values_full[ring_.stage], shared_.values_empty[ring_.stage], shared_.v[ring_.stage],
           from + call_.kv.layout.value_offset, mine, bytes);
      ring_.next();
    }
  }

 private:
  __device__ void copy(Barrier& full, Barrier& empty, std::byte* to, const std::byte* from, bool mine, uint32_t bytes) {
    empty.wait(ring_.parity ^ 1);
    if (lane_ == 0) full.arrive_and_expect(bytes);
    __syncwarp();
    if (!mine) return;
    const uint32_t panel_bytes = static_cast<uint32_t>(call_.kv.layout.block_size) * kPanelBytes;
    const uint32_t target = shared_address(to) + static_cast<uint32_t>(lane_) * panel_bytes;
#pragma unroll
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      full.copy(target + panel * Shape::kPanelBytes128, from + panel * static_cast<int64_t>(panel_bytes), panel_bytes);
    }
  }

  const WarpgroupCall& call_;
  WarpgroupShared<kDim>& shared_;
  const int lane_;
  Ring<Shape::kStages> ring_;
};

// A warpgroup of 64 query rows.
template <class T, int kDim, bool kSoftcap>
class Multiplier {
 public:
  using Shape = WarpgroupShape<kDim>;
  static constexpr int kScores = Shape::kKeys / 2;           // registers of a thread: 64 rows x kKeys over 128 threads
  static constexpr int kHalfDim = kDim == 256 ? 128 : kDim;  // columns of one product with values
  static constexpr int kHalves = kDim / kHalfDim;
  static constexpr int kValues = kHalfDim / 2;

  __device__ Multiplier(const WarpgroupCall& call, WarpgroupShared<kDim>& shared)
      : call_(call),
        shared_(shared),
        group_(static_cast<int>(threadIdx.x) / kWarpgroup - 1),
        thread_(static_cast<int>(threadIdx.x) % kWarpgroup),
        lane_(thread_ % kWarp),
        warp_(thread_ / kWarp) {}

  __device__ void start() {
    if (group_ == 1) arrive_threads(kTurn, kMultiplierThreads);  // group 0 has the first turn
  }

  // Queries of the next tile to be run; copied while the tile before it is worked on.
  __device__ void fetch_queries(const WarpgroupTile& tile, int buffer) {
    const uint32_t to = shared_address(shared_.q[buffer][group_]);
    constexpr int kChunks = kDim / 8;
    for (int i = thread_; i < kGroupRows * kChunks; i += kWarpgroup) {
      const int row = i / kChunks;
      const int chunk = i % kChunks;
      const int tile_row = group_ * kGroupRows + row;
      const bool valid = tile_row < tile.rows;
      const T* from = static_cast<const T*>(call_.rows.q);
      if (valid) from += place(tile, tile_row, call_.rows.q_stride) + chunk * 8;
      copy_async(to + SharedTile<kGroupRows>::offset(row, chunk), from, valid);
    }
    commit_copies();
  }

  // The whole group is done with the last tile's place.
  __device__ void leave_queries() { sync_threads(kGroup + group_, kWarpgroup); }

  // The fetched queries are there, for the whole group.
  __device__ void await_queries() {
    wait_copies<0>();
    fence_shared();
    sync_threads(kGroup + group_, kWarpgroup);
  }

  __device__ void run(const WarpgroupTile& tile, int buffer) {
    start_tile(tile, buffer);
    const int last = (tile.end - 1) / Shape::kKeys;
    const int first = tile.begin / Shape::kKeys;
    multiply_keys();
    wait_products<0>();
    pin_registers(scores_);
    release(shared_.keys_empty[keys_.stage]);
    keys_.next();
    weigh<true>(last);
    pack();
    for (int n = last - 1; n >= first; --n) {
      shared_.keys_full[keys_.stage].wait(keys_.parity);
      await_values(n + 1);
      sync_threads(kTurn + group_, kMultiplierThreads);
      issue_keys();
      issue_values();
      arrive_threads(kTurn + (group_ ^ 1), kMultiplierThreads);
      wait_products<1>();
      pin_registers(scores_);
      release(shared_.keys_empty[keys_.stage]);
      keys_.next();
      if (masked(n)) {
        weigh<true>(n);
      } else {
        weigh<false>(n);
      }
      wait_products<0>();
      pin_values();
      release(shared_.values_empty[values_.stage]);
      values_.next();
      rescale();
      pack();
    }
    await_values(first);
    issue_values();
    wait_products<0>();
    pin_values();
    release(shared_.values_empty[values_.stage]);
    values_.next();
    store(buffer);
  }

 private:
  __device__ void start_tile(const WarpgroupTile& tile, int buffer) {
    tile_ = tile;
    queries_ = shared_address(shared_.q[buffer][group_]);
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) sums_of_values_[h][i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      positions_[i] = tile.position + row(i) / call_.heads;
      maxima_[i] = -INFINITY;
      sums_[i] = 0.0f;
    }
    first_position_ = tile.position + group_ * kGroupRows / call_.heads;
    last_position_ = tile.position + (group_ * kGroupRows + kGroupRows - 1) / call_.heads;
  }

  // Elements from the begin of q or out to a row of the tile.
  __device__ int64_t place(const WarpgroupTile& tile, int row, int64_t stride) const {
    return (tile.token + row / call_.heads) * stride + static_cast<int64_t>(tile.head + row % call_.heads) * kDim;
  }

  // Row of the tile of the thread's first or second row of a fragment.
  __device__ int row(int i) const { return group_ * kGroupRows + warp_ * 16 + lane_ / 4 + 8 * i; }

  // Whether some row of the group does not see all of the keys n * kKeys ...
  __device__ bool masked(int n) const {
    const int begin = n * Shape::kKeys;
    return begin + Shape::kKeys - 1 > first_position_ ||
           (call_.rows.window > 0 && begin <= last_position_ - call_.rows.window);
  }

  __device__ void multiply_keys() {
    shared_.keys_full[keys_.stage].wait(keys_.parity);
    issue_keys();
  }

  __device__ void issue_keys() {
    const uint32_t keys = shared_address(shared_.k[keys_.stage]);
    pin_registers(scores_);
    fence_products();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const uint32_t step = (k % 4) * 32;
      const uint64_t a = operand(queries_ + (k / 4) * (kGroupRows * kPanelBytes) + step, kPanelBytes);
      const uint64_t b = operand(keys + (k / 4) * Shape::kPanelBytes128 + step, kPanelBytes);
      multiply_shared<T>(scores_, a, b, k > 0);
    }
    commit_products();
  }

  __device__ void issue_values() {
    const uint32_t values = shared_address(shared_.v[values_.stage]);
    pin_values();
    fence_products();
#pragma unroll
    for (int k = 0; k < Shape::kKeys / 16; ++k) {
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        const uint32_t at = values + h * (kHalfDim / 64) * Shape::kPanelBytes128 + k * 16 * kPanelBytes;
        multiply_registers<T>(sums_of_values_[h], weights_ + 4 * k, operand(at, Shape::kPanelBytes128));
      }
    }
    commit_products();
  }

  // Values of the keys n * kKeys ... are there. Places that no row sees were not copied, or never written: a weight of
  // zero does not silence a NaN, so they become zeros.
  __device__ void await_values(int n) {
    shared_.values_full[values_.stage].wait(values_.parity);
    const int begin = n * Shape::kKeys;
    const int block_size = call_.kv.layout.block_size;
    const int copied = tile_.begin / block_size * block_size;
    if (begin + Shape::kKeys <= tile_.end && begin >= copied) return;
    std::byte* values = shared_.v[values_.stage];
    const int thread = static_cast<int>(threadIdx.x) - kWarpgroup;
    for (int i = thread; i < Shape::kKeys * Shape::kPanels * 8; i += kMultiplierThreads) {
      const int key = i / 8 % Shape::kKeys;
      if (begin + key < tile_.end && begin + key >= copied) continue;
      *reinterpret_cast<uint4*>(values + static_cast<size_t>(i) * kChunkBytes) = make_uint4(0, 0, 0, 0);
    }
    fence_shared();
    sync_threads(kBoth, kMultiplierThreads);
  }

  // One arrival per warp.
  __device__ void release(Barrier& barrier) {
    if (lane_ == 0) barrier.arrive();
  }

  static __device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
  }

  // Scores of the keys n * kKeys ... become weights. factors_: what the sums so far are to be multiplied with.
  template <bool kMasked>
  __device__ void weigh(int n) {
    float scale = call_.rows.scale * kLogTwoE;
    if constexpr (kSoftcap) {
      const float inner = call_.rows.scale / call_.rows.softcap;
#pragma unroll
      for (int i = 0; i < kScores; ++i) scores_[i] = tanhf(scores_[i] * inner);
      scale = call_.rows.softcap * kLogTwoE;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if constexpr (kMasked) mask(i, n);
      float largest = maxima_[i];
#pragma unroll
      for (int j = 2 * i; j < kScores; j += 4) largest = fmaxf(largest, fmaxf(scores_[j], scores_[j + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
      // A row that has seen nothing yet keeps weights of zero.
      const float base = kMasked && largest == -INFINITY ? 0.0f : largest * scale;
      factors_[i] = power_of_two(maxima_[i] * scale - base);
      maxima_[i] = largest;
      float sum = 0.0f;
#pragma unroll
      for (int j = 2 * i; j < kScores; j += 4) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          scores_[j + c] = power_of_two(fmaf(scores_[j + c], scale, -base));
          sum += scores_[j + c];
        }
      }
      sums_[i] = sums_[i] * factors_[i] + sum;
    }
  }

  __device__ void mask(int i, int n) {
    const int position = positions_[i];
    const int begin = call_.rows.window > 0 ? position - call_.rows.window + 1 : 0;
#pragma unroll
    for (int j = 2 * i; j < kScores; j += 4) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int key = n * Shape::kKeys + j / 4 * 8 + lane_ % 4 * 2 + c;
        if (key > position || key < begin) scores_[j + c] = -INFINITY;
      }
    }
  }

  // Weights become operands of the product with values.
  __device__ void pack() {
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) weights_[i] = pack_pair<T>(scores_[2 * i], scores_[2 * i + 1]);
  }

  __device__ void rescale() {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int j = 0; j < kValues; ++j) sums_of_values_[h][j] *= factors_[j / 2 % 2];
    }
  }

  __device__ void pin_values() {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) pin_registers(sums_of_values_[h]);
    pin_registers(weights_);
  }

  // The scale of maxima_: scores before scaling, or, soft-capped, their tanh.
  __device__ float output_scale(int i) const {
    float sum = sums_[i];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (!call_.rows.sinks) return 1.0f / sum;
    const float scale = (kSoftcap ? call_.rows.softcap : call_.rows.scale) * kLogTwoE;
    const float sink = call_.rows.sinks[tile_.head + row(i) % call_.heads] * kLogTwoE;
    const float largest = maxima_[i] * scale;
    const float base = fmaxf(largest, sink);
    const float factor = exp2f(largest - base);
    return factor / (sum * factor + exp2f(sink - base));
  }

  // Through the tile's own queries' place in shared memory, so that whole rows leave at once.
  __device__ void store(int buffer) {
    std::byte* staging = shared_.q[buffer][group_];
    sync_threads(kGroup + group_, kWarpgroup);  // nobody multiplies with the queries any more
    const float scale[2] = {output_scale(0), output_scale(1)};
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int j = 0; j < kValues; j += 2) {
        const int i = j / 2 % 2;
        const int local = warp_ * 16 + lane_ / 4 + 8 * i;
        const uint32_t at =
            SharedTile<kGroupRows>::offset(local, h * (kHalfDim / 8) + j / 4) + static_cast<uint32_t>(lane_ % 4) * 4;
        *reinterpret_cast<uint32_t*>(staging + at) =
            pack_pair<T>(sums_of_values_[h][j] * scale[i], sums_of_values_[h][j + 1] * scale[i]);
      }
    }
    __syncwarp();
    constexpr int kChunks = kDim / 8;
    T* out = static_cast<T*>(call_.rows.out);
#pragma unroll 4
    for (int i = lane_; i < 16 * kChunks; i += kWarp) {
      const int local = warp_ * 16 + i / kChunks;
      const int chunk = i % kChunks;
      const int tile_row = group_ * kGroupRows + local;
      if (tile_row >= tile_.rows) break;
      const auto value = *reinterpret_cast<const uint4*>(staging + SharedTile<kGroupRows>::offset(local, chunk));
      *reinterpret_cast<uint4*>(out + place(tile_, tile_row, call_.rows.out_stride) + chunk * 8) = value;
    }
  }

  const WarpgroupCall& call_;
  WarpgroupShared<kDim>& shared_;
  const int group_;
  const int thread_;
  const int lane_;
  const int warp_;
  WarpgroupTile tile_;
  uint32_t queries_ = 0;
  int positions_[2];    // of the thread's rows
  int first_position_;  // of the group's rows
  int last_position_;
  Ring<Shape::kStages> keys_;
  Ring<Shape::kStages> values_;
  float scores_[kScores];
  uint32_t weights_[kScores / 2];
  float sums_of_values_[kHalves][kValues];
  float maxima_[2];
  float sums_[2];
  float factors_[2];
};

// Blocks take (item, query head) in turn.
template <class T, int kDim, bool kSoftcap>
__global__ void __launch_bounds__(kBlockThreads, 1) attend_warpgroups(const __grid_constant__ WarpgroupCall call) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shape = WarpgroupShape<kDim>;
  extern __shared__ std::byte dynamic[];
  const uintptr_t aligned =
      (reinterpret_cast<uintptr_t>(dynamic) + kSwizzleAtomBytes - 1) / kSwizzleAtomBytes * kSwizzleAtomBytes;
  auto& shared = *reinterpret_cast<WarpgroupShared<kDim>*>(aligned);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shape::kStages; ++i) {
      shared.keys_full[i].init(1);
      shared.values_full[i].init(1);
      shared.keys_empty[i].init(kMultiplierThreads / kWarp);
      shared.values_empty[i].init(kMultiplierThreads / kWarp);
    }
    fence_barriers();
  }
  __syncthreads();
  const int total = *call.items.count * (call.rows.q_heads / call.heads);
  const int step = static_cast<int>(gridDim.x);
  int index = static_cast<int>(blockIdx.x);
  if (threadIdx.x < kWarpgroup) {
    give_registers<24>();
    if (threadIdx.x >= kWarp) return;
    Copier<kDim> copier(call, shared);
    for (; index < total; index += step) copier.run(make_warpgroup_tile(call, index));
  } else {
    take_registers<240>();
    Multiplier<T, kDim, kSoftcap> multiplier(call, shared);
    multiplier.start();
    int buffer = 0;
    constexpr bool kAhead = Shape::kQueryBuffers > 1;
    if (kAhead && index < total) multiplier.fetch_queries(make_warpgroup_tile(call, index), 0);
    for (; index < total; index += step) {
      const WarpgroupTile tile = make_warpgroup_tile(call, index);
      if (!kAhead) {
        multiplier.leave_queries();
        multiplier.fetch_queries(tile, 0);
      }
      multiplier.await_queries();
      if (kAhead && index + step < total) multiplier.fetch_queries(make_warpgroup_tile(call, index + step), buffer ^ 1);
      multiplier.run(tile, buffer);
      if (kAhead) buffer ^= 1;
    }
  }
#endif
}

}  // namespace turbomind::cuda
