// SPDX-License-Identifier: Apache-2.0
//
// Prefill attention of sm_90a: FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608) over a paged cache. A block holds
// a warp that copies keys and values, one that copies queries, and two warpgroups of 64 query rows each. Scores of the
// next keys are multiplied while the last ones are weighed, and the warpgroups take turns on the tensor cores. The
// pool's tiles lie in memory as tensor cores read them, so the copies need no tensor map.
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

struct WarpgroupCall {
  AttentionRows rows;
  PagedKv kv;
  StepView step;
  AttentionItems items;  // of at most kBlockRows / heads query positions
  int heads_log2;        // of the query heads of a tile, all of one kv head
};

// One item and some query heads: row r of the tile is query position r >> heads_log2 and head r & (heads - 1).
struct WarpgroupTile {
  int seq;
  int token;     // row of the call of the first query position
  int rows;      // positions x heads
  int position;  // of the first query row in its context
  int head;      // the first one
  int begin;     // first visible position
  int end;       // past the last one
  int copied;    // first position of the block of `begin`
};

template <int kDim>
struct WarpgroupShared {
  using Shape = WarpgroupShape<kDim>;
  alignas(kSwizzleAtomBytes) std::byte q[Shape::kQueryBuffers][kNumGroups][Shape::kQueryBytes];
  alignas(kSwizzleAtomBytes) std::byte k[Shape::kStages][Shape::kTileBytes];
  alignas(kSwizzleAtomBytes) std::byte v[Shape::kStages][Shape::kTileBytes];
  WarpgroupTile tiles[Shape::kQueryBuffers];
  Barrier queries_full[Shape::kQueryBuffers];
  Barrier queries_empty[Shape::kQueryBuffers];
  Barrier keys_full[Shape::kStages];
  Barrier keys_empty[Shape::kStages];
  Barrier values_full[Shape::kStages];
  Barrier values_empty[Shape::kStages];
};

// Named barriers; 0 is __syncthreads.
enum NamedBarrier : int { kTurn = 1, kGroup = kTurn + kNumGroups, kBoth = kGroup + kNumGroups };

__device__ __forceinline__ WarpgroupTile make_warpgroup_tile(const WarpgroupCall& call, int index) {
  const int parts = call.rows.q_heads >> call.heads_log2;
  const AttentionItem item = call.items.items[index / parts];
  const int first = call.step.cu_seqlens_q[item.seq];
  const int length = call.step.cu_seqlens_q[item.seq + 1] - first;
  WarpgroupTile tile;
  tile.seq = item.seq;
  tile.token = first + item.first;
  tile.rows = item.positions << call.heads_log2;
  tile.position = call.step.context_lens[item.seq] - length + item.first;
  tile.head = (index % parts) << call.heads_log2;
  tile.begin = call.rows.window > 0 ? max(0, tile.position - call.rows.window + 1) : 0;
  tile.end = tile.position + item.positions;
  tile.copied = tile.begin / call.kv.layout.block_size * call.kv.layout.block_size;
  return tile;
}

// Tiles of a block in turn. They come longest first, so every other round goes through the blocks backwards.
class TileOrder {
 public:
  __device__ explicit TileOrder(const WarpgroupCall& call)
      : call_(call), total_(*call.items.count * (call.rows.q_heads >> call.heads_log2)) {}

  // False: there are no more.
  __device__ bool next(WarpgroupTile& tile) {
    const auto blocks = static_cast<int>(gridDim.x);
    const auto block = static_cast<int>(blockIdx.x);
    const int index = round_ * blocks + (round_ % 2 == 0 ? block : blocks - 1 - block);
    ++round_;
    if (index >= total_) return false;
    tile = make_warpgroup_tile(call_, index);
    return true;
  }

 private:
  const WarpgroupCall& call_;
  const int total_;
  int round_ = 0;
};

// Elements from the begin of q or out to a row of the tile.
template <int kDim>
__device__ __forceinline__ int64_t place_of(const WarpgroupCall& call, const WarpgroupTile& tile, int row,
                                            int64_t stride) {
  const int head = tile.head + (row & ((1 << call.heads_log2) - 1));
  return (tile.token + (row >> call.heads_log2)) * stride + static_cast<int64_t>(head) * kDim;
}

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

// The warp that copies queries, while the tile before is worked on.
template <class T, int kDim>
class QueryCopier {
 public:
  using Shape = WarpgroupShape<kDim>;

  __device__ QueryCopier(const WarpgroupCall& call, WarpgroupShared<kDim>& shared)
      : call_(call), shared_(shared), lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  // nullptr: there are no more tiles.
  __device__ void run(const WarpgroupTile* tile) {
    shared_.queries_empty[ring_.stage].wait(ring_.parity ^ 1);
    if (lane_ == 0) shared_.tiles[ring_.stage] = tile ? *tile : WarpgroupTile{};
    if (tile) copy(*tile);
    __syncwarp();
    shared_.queries_full[ring_.stage].arrive();
    ring_.next();
  }

 private:
  __device__ void copy(const WarpgroupTile& tile) {
    constexpr int kChunks = kDim / 8;
    const uint32_t to = shared_address(shared_.q[ring_.stage][0]);
#pragma unroll 4
    for (int i = lane_; i < kBlockRows * kChunks; i += kWarp) {
      const int row = i / kChunks;
      const int chunk = i % kChunks;
      const bool valid = row < tile.rows;
      const T* from = static_cast<const T*>(call_.rows.q);
      if (valid) from += place_of<kDim>(call_, tile, row, call_.rows.q_stride) + chunk * 8;
      const int group = row / kGroupRows;
      copy_async(to + group * Shape::kQueryBytes + SharedTile<kGroupRows>::offset(row % kGroupRows, chunk), from,
                 valid);
    }
    commit_copies();
    wait_copies<0>();
    fence_shared();
  }

  const WarpgroupCall& call_;
  WarpgroupShared<kDim>& shared_;
  const int lane_;
  Ring<Shape::kQueryBuffers> ring_;
};

// A warpgroup of 64 query rows.
template <class T, int kDim, bool kSoftcap>
class Multiplier {
 public:
  using Shape = WarpgroupShape<kDim>;
  static constexpr int kScores = Shape::kKeys / 2;           // registers of a thread: 64 rows x kKeys over 128 threads
  static constexpr int kEarlyScores = kScores / 4;           // weighed before values are waited for
  static constexpr int kHalfDim = kDim == 256 ? 128 : kDim;  // columns of one product with values
  static constexpr int kHalves = kDim / kHalfDim;
  static constexpr int kValues = kHalfDim / 2;

  __device__ Multiplier(const WarpgroupCall& call, WarpgroupShared<kDim>& shared)
      : call_(call),
        shared_(shared),
        group_(static_cast<int>(uniform(threadIdx.x / kWarpgroup)) - 1),
        thread_(static_cast<int>(threadIdx.x) % kWarpgroup),
        lane_(thread_ % kWarp),
        warp_(thread_ / kWarp),
        scale_((kSoftcap ? call.rows.softcap : call.rows.scale) * kLogTwoE) {}

  __device__ void start() {
    if (group_ == 1) arrive_threads(kTurn, kMultiplierThreads);  // group 0 has the first turn
  }

  // False: there are no more tiles.
  __device__ bool run() {
    shared_.queries_full[tiles_.stage].wait(tiles_.parity);
    start_tile();
    if (tile_.rows == 0) return false;
    const int last = (tile_.end - 1) / Shape::kKeys;
    const int first = tile_.begin / Shape::kKeys;
    shared_.keys_full[keys_.stage].wait(keys_.parity);
    issue_keys();
    wait_products<0>();
    pin_registers(scores_);
    release(shared_.keys_empty[keys_.stage]);
    keys_.next();
    weigh<true>(last);
    exponentiate(0, kScores);
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
      // Two paths also because the wait for values would otherwise move to where they join, before the exponentials.
      if (masked(n)) {
        weigh<true>(n);
        exponentiate(0, kEarlyScores);
      } else {
        weigh<false>(n);
        exponentiate(0, kEarlyScores);
      }
      // What the product with values holds back is done between the rest of the exponentials, whose unit is slowest.
      wait_products<0>();
      pin_values();
      release(shared_.values_empty[values_.stage]);
      values_.next();
      exponentiate(kEarlyScores, kScores);
      rescale();
      pack();
    }
    await_values(first);
    issue_values();
    wait_products<0>();
    pin_values();
    release(shared_.values_empty[values_.stage]);
    values_.next();
    store();
    // By every lane, as each has used the queries' place: checkers do not follow what a lane says for others.
    shared_.queries_empty[tiles_.stage].arrive();
    tiles_.next();
    return true;
  }

 private:
  __device__ void start_tile() {
    tile_ = shared_.tiles[tiles_.stage];
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) sums_of_values_[h][i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      positions_[i] = tile_.position + (row(i) >> call_.heads_log2);
      maxima_[i] = -INFINITY;
      sums_[i] = 0.0f;
    }
    first_position_ = tile_.position + ((group_ * kGroupRows) >> call_.heads_log2);
    last_position_ = tile_.position + ((group_ * kGroupRows + kGroupRows - 1) >> call_.heads_log2);
  }

  // Row of the tile of the thread's first or second row of a fragment.
  __device__ int row(int i) const { return group_ * kGroupRows + warp_ * 16 + lane_ / 4 + 8 * i; }

  // Whether some row of the group does not see all of the keys n * kKeys ...
  __device__ bool masked(int n) const {
    const int begin = n * Shape::kKeys;
    return begin + Shape::kKeys - 1 > first_position_ ||
           (call_.rows.window > 0 && begin <= last_position_ - call_.rows.window);
  }

  __device__ void issue_keys() {
    const uint64_t a = operand(uniform(shared_address(shared_.q[tiles_.stage][group_])), kPanelBytes);
    const uint64_t b = operand(uniform(shared_address(shared_.k[keys_.stage])), kPanelBytes);
    pin_registers(scores_);
    fence_products();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const uint32_t step = (k % 4) * 32;
      multiply_shared<T>(scores_, operand_at(a, (k / 4) * (kGroupRows * kPanelBytes) + step),
                         operand_at(b, (k / 4) * Shape::kPanelBytes128 + step), k > 0);
    }
    commit_products();
  }

  __device__ void issue_values() {
    const uint64_t values = operand(uniform(shared_address(shared_.v[values_.stage])), Shape::kPanelBytes128);
    pin_values();
    fence_products();
#pragma unroll
    for (int k = 0; k < Shape::kKeys / 16; ++k) {
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        multiply_registers<T>(sums_of_values_[h], weights_ + 4 * k,
                              operand_at(values, h * (kHalfDim / 64) * Shape::kPanelBytes128 + k * 16 * kPanelBytes));
      }
    }
    commit_products();
  }

  // Values of the keys n * kKeys ... are there. Places that no row sees were not copied, or never written: a weight of
  // zero does not silence a NaN, so they become zeros.
  __device__ void await_values(int n) {
    shared_.values_full[values_.stage].wait(values_.parity);
    const int begin = n * Shape::kKeys;
    const int copied = tile_.copied;
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

  // One arrival per warp, whose tensor cores alone have used the place.
  __device__ void release(Barrier& barrier) {
    if (lane_ == 0) barrier.arrive();
  }

  static __device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
  }

  // The largest scores of the rows, the keys n * kKeys ... among them, and what follows from them: bases_ of the
  // exponents, and factors_ that the sums so far are to be multiplied with.
  template <bool kMasked>
  __device__ void weigh(int n) {
    if constexpr (kSoftcap) {
      const float inner = call_.rows.scale / call_.rows.softcap;
#pragma unroll
      for (int i = 0; i < kScores; ++i) scores_[i] = tanhf(scores_[i] * inner);
    }
    if constexpr (kMasked) {
      mask(0, n);
      mask(1, n);
    }
    float largest[2] = {maxima_[0], maxima_[1]};
#pragma unroll
    for (int j = 0; j < kScores; j += 4) {
      largest[0] = fmaxf(largest[0], fmaxf(scores_[j], scores_[j + 1]));
      largest[1] = fmaxf(largest[1], fmaxf(scores_[j + 2], scores_[j + 3]));
    }
#pragma unroll
    for (int lanes = 1; lanes <= 2; lanes *= 2) {
      const float other[2] = {__shfl_xor_sync(~0u, largest[0], lanes), __shfl_xor_sync(~0u, largest[1], lanes)};
      largest[0] = fmaxf(largest[0], other[0]);
      largest[1] = fmaxf(largest[1], other[1]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // A row that has seen nothing yet keeps weights of zero.
      bases_[i] = kMasked && largest[i] == -INFINITY ? 0.0f : largest[i] * scale_;
      factors_[i] = power_of_two(maxima_[i] * scale_ - bases_[i]);
      maxima_[i] = largest[i];
      sums_[i] *= factors_[i];
    }
  }

  // Scores become weights.
  __device__ void exponentiate(int begin, int end) {
#pragma unroll
    for (int j = begin; j < end; ++j) {
      scores_[j] = power_of_two(fmaf(scores_[j], scale_, -bases_[j / 2 % 2]));
      sums_[j / 2 % 2] += scores_[j];
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
    const float sink = call_.rows.sinks[tile_.head + (row(i) & ((1 << call_.heads_log2) - 1))] * kLogTwoE;
    const float largest = maxima_[i] * scale_;
    const float base = fmaxf(largest, sink);
    const float factor = exp2f(largest - base);
    return factor / (sum * factor + exp2f(sink - base));
  }

  // Through the tile's own queries' place in shared memory, so that whole rows leave at once.
  __device__ void store() {
    std::byte* staging = shared_.q[tiles_.stage][group_];
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
      *reinterpret_cast<uint4*>(out + place_of<kDim>(call_, tile_, tile_row, call_.rows.out_stride) + chunk * 8) =
          value;
    }
  }

  const WarpgroupCall& call_;
  WarpgroupShared<kDim>& shared_;
  const int group_;
  const int thread_;
  const int lane_;
  const int warp_;
  WarpgroupTile tile_;
  int positions_[2];    // of the thread's rows
  int first_position_;  // of the group's rows
  int last_position_;
  Ring<Shape::kStages> keys_;
  Ring<Shape::kStages> values_;
  Ring<Shape::kQueryBuffers> tiles_;
  const float scale_;  // of scores, or, soft-capped, of their tanh, as exponents of two
  float scores_[kScores];
  uint32_t weights_[kScores / 2];
  float sums_of_values_[kHalves][kValues];
  float maxima_[2];
  float sums_[2];
  float bases_[2];
  float factors_[2];
};

// Blocks take (item, query head) in turn.
template <class T, int kDim, bool kSoftcap>
__global__ void __launch_bounds__(kBlockThreads, 1) attend_warpgroups(const __grid_constant__ WarpgroupCall call) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shape = WarpgroupShape<kDim>;
  extern __shared__ __align__(kSwizzleAtomBytes) std::byte dynamic[];
  auto& shared = *reinterpret_cast<WarpgroupShared<kDim>*>(dynamic);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shape::kStages; ++i) {
      shared.keys_full[i].init(1);
      shared.values_full[i].init(1);
      shared.keys_empty[i].init(kMultiplierThreads / kWarp);
      shared.values_empty[i].init(kMultiplierThreads / kWarp);
    }
    for (int i = 0; i < Shape::kQueryBuffers; ++i) {
      shared.queries_full[i].init(kWarp);
      shared.queries_empty[i].init(kMultiplierThreads);
    }
    fence_barriers();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroup) {
    give_registers<40>();  // what one side gives the other takes: the block has no more
    TileOrder order(call);
    WarpgroupTile tile;
    if (threadIdx.x < kWarp) {
      Copier<kDim> copier(call, shared);
      while (order.next(tile)) copier.run(tile);
    } else if (threadIdx.x < 2 * kWarp) {
      QueryCopier<T, kDim> copier(call, shared);
      while (order.next(tile)) copier.run(&tile);
      copier.run(nullptr);
    }
  } else {
    take_registers<232>();
    Multiplier<T, kDim, kSoftcap> multiplier(call, shared);
    multiplier.start();
    while (multiplier.run()) {
    }
  }
#endif
}

}  // namespace turbomind::cuda
