// SPDX-License-Identifier: Apache-2.0
//
// Attention of a tile of 64 rows (query positions x heads of one kv head) against chunks of 64 keys on mma.sync:
// FlashAttention-2 (Dao 2023, arXiv:2307.08691). Four warps of 16 rows each; keys and values pass through one buffer
// each, filled while the other one is worked on. Chunks begin at multiples of 64, so a row's bits do not depend on the
// tile it came in.
#pragma once

#include <cmath>

#include "kernels/attention.h"
#include "kernels/mma.cuh"

namespace turbomind::cuda {

inline constexpr int kTileWarps = kTileRows / 16;
inline constexpr int kTileThreads = kTileWarps * kWarp;
inline constexpr float kLog2E = 1.4426950408889634f;

// What a row's sum of weighted values is multiplied with: 1 / (sum of weights + the sink's).
__device__ __forceinline__ float output_factor(float largest, float sum, const float* sinks, int head) {
  if (!sinks) return 1.0f / sum;
  const float sink = sinks[head] * kLog2E;
  const float base = fmaxf(largest, sink);
  const float factor = exp2f(largest - base);
  return factor / (sum * factor + exp2f(sink - base));
}

// What a block works on: a tile and the keys that it meets.
struct Tile {
  int seq;        // whose keys they are
  int token;      // row of the call of the tile's first query position
  int positions;  // of queries
  int position;   // of the first query row in its context
  int kv_head;
  int head;   // first query head
  int heads;  // per query position
  int begin;  // first visible position
  int end;    // past the last one
  int partial_row;
  bool causal;
  const int32_t* row_end;   // of the first query position, as StepView's
  const int32_t* contexts;  // lengths of the contexts whose last positions are the queries'; nullptr: of one sequence

  __device__ int rows() const { return positions * heads; }
  __device__ int row_position(int row) const {
    return contexts ? contexts[min(row / heads, positions - 1)] - 1 : position + row / heads;
  }
  // The last position that the row sees.
  __device__ int last_position(int row) const {
    if (!causal) return end - 1;
    return min(row_end ? row_end[row / heads] - 1 : row_position(row), end - 1);
  }
};

// Elements from the begin of q or out to a row of the tile.
__device__ __forceinline__ int64_t row_place(const Tile& tile, int row, int64_t stride, int dim) {
  return (tile.token + row / tile.heads) * stride + static_cast<int64_t>(tile.head + row % tile.heads) * dim;
}

// Where keys and values of one sequence and kv head lie. A row is a position; chunks are 16 bytes of shared memory.
struct PagedSource {
  const std::byte* head;
  const int32_t* table;
  const KvLayout* layout;
  int block_shift;

  struct Row {
    const std::byte* block;
    int place;
  };

  __device__ PagedSource(const PagedKv& kv, const StepView& step, const Tile& tile, const AttentionRows&)
      : head(kv.pool + kv.layout.head(0, tile.kv_head)),
        table(step.block_table + tile.seq * step.block_table_stride),
        layout(&kv.layout),
        block_shift(kv.layout.block_size == 64   ? 6
                    : kv.layout.block_size == 32 ? 5
                                                 : 4) {}

  __device__ Row row(int position) const {
    return {head + static_cast<int64_t>(table[position >> block_shift]) * layout->block_bytes,
            position & (layout->block_size - 1)};
  }
  // Byte offsets are of the pool's own dtype.
  __device__ const std::byte* key(const Row& r, int byte) const { return r.block + layout->keys.offset(r.place, byte); }
  __device__ const std::byte* value(const Row& r, int byte) const {
    return r.block + layout->value_offset + layout->values.offset(r.place, byte);
  }
  __device__ float key_scale(const Row& r) const { return scales(r)[r.place]; }
  __device__ float value_scale(const Row& r) const { return scales(r)[layout->block_size + r.place]; }

 private:
  __device__ const float* scales(const Row& r) const {
    return reinterpret_cast<const float*>(r.block + layout->scale_offset);
  }
};

struct DenseSource {
  const std::byte* keys;
  const std::byte* values;
  int64_t key_stride;  // bytes
  int64_t value_stride;

  using Row = int64_t;

  __device__ DenseSource(const DenseKv& kv, const StepView& step, const Tile& tile, const AttentionRows& rows)
      : key_stride(2 * kv.k_stride), value_stride(2 * kv.v_stride) {
    const int64_t first = step.cu_seqlens_q[tile.seq];
    keys = static_cast<const std::byte*>(kv.k) + first * key_stride + 2 * tile.kv_head * rows.dim_k;
    values = static_cast<const std::byte*>(kv.v) + first * value_stride + 2 * tile.kv_head * rows.dim_v;
  }

  __device__ Row row(int position) const { return position; }
  __device__ const std::byte* key(Row r, int byte) const { return keys + r * key_stride + byte; }
  __device__ const std::byte* value(Row r, int byte) const { return values + r * value_stride + byte; }
};

// Brings keys or values of 64 positions to shared memory, by all threads of a block. Those outside [begin, end) become
// zeros: the pool need not hold them, and a weight of zero does not silence a NaN.
template <class T, class KV, int kDim, class Source>
struct ChunkLoader {
  const Source& source;
  int begin;
  int end;

  // scales: [kTileKeys], filled for int8 only. The caller commits the copies.
  template <bool kKeys>
  __device__ void load(int first, std::byte* shared, float* scales, int dim) const {
    constexpr int kRowsAtOnce = kTileThreads / 8;
    const uint32_t to = shared_address(shared);
#pragma unroll
    for (int i = 0; i < kTileKeys / kRowsAtOnce; ++i) {
      const int row = static_cast<int>(threadIdx.x) / 8 + i * kRowsAtOnce;
      const int position = first + row;
      const bool visible = position >= begin && position < end;
      const typename Source::Row from = source.row(visible ? position : begin);
#pragma unroll
      for (int panel = 0; panel < kDim / 64; ++panel) {
        const int chunk = panel * 8 + static_cast<int>(threadIdx.x) % 8;
        const bool valid = visible && chunk * 8 < dim;
        load_chunk<kKeys>(to + SharedTile<kTileKeys>::offset(row, chunk), from, valid ? chunk : 0, valid);
      }
      if constexpr (sizeof(KV) == 1) {
        const float scale = kKeys ? source.key_scale(from) : source.value_scale(from);
        if (threadIdx.x % 8 == 0) scales[row] = visible ? scale : 0.0f;
      }
    }
  }

 private:
  template <bool kKeys>
  __device__ void load_chunk(uint32_t to, const typename Source::Row& from, int chunk, bool valid) const {
    const int byte = chunk * 8 * static_cast<int>(sizeof(KV));
    const std::byte* at = kKeys ? source.key(from, byte) : source.value(from, byte);
    if constexpr (sizeof(KV) > 1) {
      copy_async(to, at, valid);
    } else {
      uint32_t words[4] = {};
      if (valid) {
        const auto codes = *reinterpret_cast<const Pack<int8_t, 8>*>(at);
#pragma unroll
        for (int i = 0; i < 4; ++i) words[i] = pack_pair<T>(to_float(codes.v[2 * i]), to_float(codes.v[2 * i + 1]));
      }
      asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};\n" ::"r"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]),
                   "r"(words[3])
                   : "memory");
    }
  }
};

template <int kDim>
struct TileShared {
  alignas(128) std::byte q[kTileRows * kDim * 2];
  alignas(128) std::byte k[kTileKeys * kDim * 2];
  alignas(128) std::byte v[kTileKeys * kDim * 2];
  float key_scale[kTileKeys];
  float value_scale[kTileKeys];
};

// T: dtype of activations. KV: T, or int8_t. kDim: both head sizes padded to 64, 128 or 256; padding holds zeros.
template <class T, class KV, int kDim, class Source>
class TileAttention {
 public:
  __device__ TileAttention(const AttentionRows& rows, const Tile& tile, const Source& source, TileShared<kDim>& shared)
      : rows_(rows),
        tile_(tile),
        loader_{source, tile.begin, tile.end},
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        active_(warp_ * 16 < tile.rows()) {
    for (int i = 0; i < 2; ++i) {
      const int row = tile_row(i);
      const bool inside = row < tile.rows();
      const int position = tile.row_position(row);
      last_[i] = inside ? tile.last_position(row) : -1;
      first_[i] = max(tile.begin, rows.window > 0 ? position - rows.window + 1 : 0);
    }
  }

  __device__ void run(const Partials& partials) {
    if (tile_.begin < tile_.end) {
      const int first = tile_.begin / kTileKeys * kTileKeys;
      load_queries();
      load_keys(first);
      for (int chunk = first; chunk < tile_.end; chunk += kTileKeys) step(chunk, chunk == first);
    }
    reduce_sums();
    if (tile_.partial_row >= 0) {
      store_partials(partials);
    } else {
      store_output();
    }
  }

 private:
  static constexpr int kChunks = kDim / 8;         // 16-byte chunks of a row in shared memory
  static constexpr int kKeyTiles = kTileKeys / 8;  // mma tiles of 8 columns
  static constexpr int kDimTiles = kDim / 8;
  static constexpr bool kKeepQueries = kDim <= 128;  // in registers
  static constexpr bool kInt8 = sizeof(KV) == 1;

  __device__ int tile_row(int i) const { return warp_ * 16 + lane_ / 4 + 8 * i; }

  // Places of row `row` of the tile: query position row / heads, head row % heads.
  __device__ int64_t token_of(int row) const { return tile_.token + row / tile_.heads; }
  __device__ int head_of(int row) const { return tile_.head + row % tile_.heads; }

  __device__ void load_queries() {
    const uint32_t to = shared_address(shared_.q);
    for (int i = static_cast<int>(threadIdx.x); i < kTileRows * kChunks; i += kTileThreads) {
      const int row = i / kChunks;
      const int chunk = i % kChunks;
      const bool valid = row < tile_.rows() && chunk * 8 < rows_.dim_k;
      const T* from = static_cast<const T*>(rows_.q);
      if (valid) from += token_of(row) * rows_.q_stride + static_cast<int64_t>(head_of(row)) * rows_.dim_k + chunk * 8;
      copy_async(to + SharedTile<kTileRows>::offset(row, chunk), from, valid);
    }
  }

  __device__ void load_keys(int chunk) {
    loader_.template load<true>(chunk, shared_.k, shared_.key_scale, rows_.dim_k);
    commit_copies();
  }
  __device__ void load_values(int chunk) {
    loader_.template load<false>(chunk, shared_.v, shared_.value_scale, rows_.dim_v);
    commit_copies();
  }

  // One chunk of keys. On entry its keys are on their way.
  __device__ void step(int chunk, bool first) {
    load_values(chunk);
    wait_copies<1>();
    __syncthreads();
    if (kKeepQueries && first && active_) fetch_queries();
    float scores[kKeyTiles][4] = {};
    if (active_) {
      multiply_keys(scores);
      weigh(chunk, scores);
    }
    __syncthreads();  // all have read the keys
    const bool more = chunk + kTileKeys < tile_.end;
    if (more) load_keys(chunk + kTileKeys);
    if (more) {
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    if (active_) multiply_values(scores);
    __syncthreads();  // all have read the values
  }

  __device__ uint32_t query_address(int k) const {
    return shared_address(shared_.q) + SharedTile<kTileRows>::offset(warp_ * 16 + lane_ % 16, 2 * k + lane_ / 16);
  }

  __device__ void fetch_queries() {
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) load_matrices(queries_[kKeepQueries ? k : 0], query_address(k));
  }

  __device__ void multiply_keys(float (&scores)[kKeyTiles][4]) {
    const uint32_t keys = shared_address(shared_.k);
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      if constexpr (!kKeepQueries) load_matrices(queries_[0], query_address(k));
#pragma unroll
      for (int n = 0; n < kKeyTiles; n += 2) {
        uint32_t b[4];
        const int row = n * 8 + (lane_ / 16) * 8 + lane_ % 8;
        load_matrices(b, keys + SharedTile<kTileKeys>::offset(row, 2 * k + lane_ / 8 % 2));
        multiply_add<T>(scores[n], queries_[kKeepQueries ? k : 0], b[0], b[1]);
        multiply_add<T>(scores[n + 1], queries_[kKeepQueries ? k : 0], b[2], b[3]);
      }
    }
  }

  // Scores become weights; the running sums are brought to the new maxima.
  __device__ void weigh(int chunk, float (&scores)[kKeyTiles][4]) {
    const float log_scale = rows_.scale * kLog2E;
    float largest[2] = {maxima_[0], maxima_[1]};
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = n * 8 + lane_ % 4 * 2 + i % 2;
        float score = scores[n][i];
        if constexpr (kInt8) score *= shared_.key_scale[column];
        if (rows_.softcap > 0.0f) {
          score = rows_.softcap * tanhf(score * rows_.scale / rows_.softcap) * kLog2E;
        } else {
          score *= log_scale;
        }
        const int position = chunk + column;
        score = position >= first_[i / 2] && position <= last_[i / 2] ? score : -INFINITY;
        scores[n][i] = score;
        largest[i / 2] = fmaxf(largest[i / 2], score);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(~0u, largest[i], 1));
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(~0u, largest[i], 2));
      // A row that has seen nothing yet keeps weights of zero.
      const float base = largest[i] == -INFINITY ? 0.0f : largest[i];
      const float factor = exp2f(maxima_[i] - base);
      maxima_[i] = largest[i];
      sums_[i] *= factor;
#pragma unroll
      for (int d = 0; d < kDimTiles; ++d) {
        values_[d][2 * i] *= factor;
        values_[d][2 * i + 1] *= factor;
      }
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        for (int j = 2 * i; j < 2 * i + 2; ++j) {
          scores[n][j] = exp2f(scores[n][j] - base);
          sums_[i] += scores[n][j];
        }
      }
    }
  }

  __device__ void multiply_values(float (&weights)[kKeyTiles][4]) {
    const uint32_t values = shared_address(shared_.v);
    if constexpr (kInt8) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) weights[n][i] *= shared_.value_scale[n * 8 + lane_ % 4 * 2 + i % 2];
      }
    }
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
      const uint32_t a[4] = {pack_pair<T>(weights[2 * k][0], weights[2 * k][1]),
                             pack_pair<T>(weights[2 * k][2], weights[2 * k][3]),
                             pack_pair<T>(weights[2 * k + 1][0], weights[2 * k + 1][1]),
                             pack_pair<T>(weights[2 * k + 1][2], weights[2 * k + 1][3])};
#pragma unroll
      for (int d = 0; d < kDimTiles; d += 2) {
        uint32_t b[4];
        load_matrices_transposed(b, values + SharedTile<kTileKeys>::offset(k * 16 + lane_ % 16, d + lane_ / 16));
        multiply_add<T>(values_[d], a, b[0], b[1]);
        multiply_add<T>(values_[d + 1], a, b[2], b[3]);
      }
    }
  }

  // The four lanes of a row hold parts of its sum.
  __device__ void reduce_sums() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sums_[i] += __shfl_xor_sync(~0u, sums_[i], 1);
      sums_[i] += __shfl_xor_sync(~0u, sums_[i], 2);
    }
  }

  __device__ void store_output() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = tile_row(i);
      if (row >= tile_.rows()) continue;
      const int head = head_of(row);
      const float factor = output_factor(maxima_[i], sums_[i], rows_.sinks, head);
      T* out = static_cast<T*>(rows_.out) + token_of(row) * rows_.out_stride + static_cast<int64_t>(head) * rows_.dim_v;
#pragma unroll
      for (int d = 0; d < kDimTiles; ++d) {
        const int column = d * 8 + lane_ % 4 * 2;
        if (column >= rows_.dim_v) continue;
        *reinterpret_cast<uint32_t*>(out + column) =
            pack_pair<T>(values_[d][2 * i] * factor, values_[d][2 * i + 1] * factor);
      }
    }
  }

  __device__ void store_partials(const Partials& partials) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = tile_row(i);
      if (row >= tile_.rows()) continue;
      const int64_t index = static_cast<int64_t>(tile_.partial_row + row / tile_.heads) * rows_.q_heads + head_of(row);
      if (lane_ % 4 == 0) {
        partials.maxima[index] = maxima_[i];
        partials.sums[index] = sums_[i];
      }
#pragma unroll
      for (int d = 0; d < kDimTiles; ++d) {
        const int column = d * 8 + lane_ % 4 * 2;
        if (column >= rows_.dim_v) continue;
        *reinterpret_cast<float2*>(partials.values + index * rows_.dim_v + column) =
            make_float2(values_[d][2 * i], values_[d][2 * i + 1]);
      }
    }
  }

  const AttentionRows& rows_;
  const Tile& tile_;
  const ChunkLoader<T, KV, kDim, Source> loader_;
  TileShared<kDim>& shared_;
  const int lane_;
  const int warp_;
  const bool active_;  // the warp has rows
  int first_[2];       // positions that the lane's rows see
  int last_[2];
  uint32_t queries_[kKeepQueries ? kDim / 16 : 1][4];
  float values_[kDimTiles][4] = {};
  float maxima_[2] = {-INFINITY, -INFINITY};
  float sums_[2] = {};
};

}  // namespace turbomind::cuda
