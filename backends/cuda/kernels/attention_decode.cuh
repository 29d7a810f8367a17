// SPDX-License-Identifier: Apache-2.0
//
// Attention of at most 16 rows (query positions x heads of one kv head): decode. Four warps share the keys of a chunk,
// 16 each, and keep statistics of their own, which are merged at the end; so a chunk costs no exchange between warps
// and the time goes into reading the cache. Here a block loads its chunks itself, the next while one is worked on;
// attention_stream.cuh leaves that to the copy engine of sm_90.
#pragma once

#include "kernels/attention_tiles.cuh"

namespace turbomind::cuda {

inline constexpr int kWarpKeys = kTileKeys / kTileWarps;

template <int kDim>
struct DecodeShared {
  static constexpr int kStages = kDim == 256 ? 1 : 2;
  alignas(128) std::byte q[kDecodeRows * kDim * 2];
  alignas(128) std::byte k[kStages][kTileKeys * kDim * 2];  // at the end the warps' sums
  alignas(128) std::byte v[kStages][kTileKeys * kDim * 2];
  float key_scale[kStages][kTileKeys];
  float value_scale[kStages][kTileKeys];
  float maxima[kTileWarps][kDecodeRows];
  float sums[kTileWarps][kDecodeRows];
};

// Where a chunk of keys and values lies in shared memory, as SharedTile says.
struct DecodeChunk {
  int position;  // of its first key
  uint32_t keys;
  uint32_t values;
  const float* key_scale;  // [kTileKeys]; int8 only
  const float* value_scale;
};

// What the warps of a block bring together, of `rows` rows.
struct DecodeSums {
  float* values;  // [warp][row][kDim]
  float* maxima;  // [warp][row]
  float* sums;    // likewise
  int rows;
};

// The part of one warp: 16 keys of each chunk, and the sums over them. Template arguments as TileAttention's.
template <class T, class KV, int kDim>
class DecodeWarp {
 public:
  explicit __device__ DecodeWarp(const AttentionRows& rows)
      : rows_(rows), lane_(static_cast<int>(threadIdx.x) % kWarp), warp_(static_cast<int>(threadIdx.x) / kWarp) {}

  // queries: the tile's, in shared memory.
  __device__ void start(const Tile& tile, uint32_t queries) {
    queries_at_ = queries;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane_ / 4 + 8 * i;
      const int position = tile.row_position(row);
      last_[i] = row < tile.rows() ? min(position, tile.end - 1) : -1;
      first_[i] = max(tile.begin, rows_.window > 0 ? position - rows_.window + 1 : 0);
      maxima_[i] = -INFINITY;
      sums_[i] = 0.0f;
    }
#pragma unroll
    for (int d = 0; d < kDimTiles; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) values_[d][i] = 0.0f;
    }
    if constexpr (kKeepQueries) {
#pragma unroll
      for (int k = 0; k < kDim / 16; ++k) load_matrices(queries_[k], query_address(k));
    }
  }

  __device__ void step(const DecodeChunk& chunk) {
    float scores[kKeyTiles][4] = {};
    multiply_keys(scores, chunk);
    weigh(scores, chunk);
    multiply_values(scores, chunk);
  }

  // Rows [first, first + to.rows) of the tile; the caller synchronises.
  __device__ void share(const Tile& tile, int first, const DecodeSums& to) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane_ / 4 + 8 * i;
      float sum = sums_[i];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      if (row < first || row >= min(first + to.rows, tile.rows())) continue;
      const int place = warp_ * to.rows + row - first;
      if (lane_ % 4 == 0) {
        to.maxima[place] = maxima_[i];
        to.sums[place] = sum;
      }
#pragma unroll
      for (int d = 0; d < kDimTiles; ++d) {
        *reinterpret_cast<float2*>(to.values + place * kDim + d * 8 + lane_ % 4 * 2) =
            make_float2(values_[d][2 * i], values_[d][2 * i + 1]);
      }
    }
  }

  // Those rows in turn over the warps, dimensions over the lanes.
  __device__ void merge(const Tile& tile, int first, const DecodeSums& from, const Partials& partials) const {
    for (int row = first + warp_; row < min(first + from.rows, tile.rows()); row += kTileWarps) {
      float largest = -INFINITY;
#pragma unroll
      for (int w = 0; w < kTileWarps; ++w) largest = fmaxf(largest, from.maxima[w * from.rows + row - first]);
      float factors[kTileWarps];
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kTileWarps; ++w) {
        const int place = w * from.rows + row - first;
        factors[w] = largest == -INFINITY ? 0.0f : exp2f(from.maxima[place] - largest);
        sum += from.sums[place] * factors[w];
      }
      const int head = tile.head + row % tile.heads;
      const bool partial = tile.partial_row >= 0;
      const int64_t index = static_cast<int64_t>(tile.partial_row + row / tile.heads) * rows_.q_heads + head;
      const float scale = partial ? 1.0f : output_factor(largest, sum, rows_.sinks, head);
      if (partial && lane_ == 0) {
        partials.maxima[index] = largest;
        partials.sums[index] = sum;
      }
      T* out = static_cast<T*>(rows_.out) + row_place(tile, row, rows_.out_stride, rows_.dim_v);
      for (int d = 2 * lane_; d < rows_.dim_v; d += 2 * kWarp) {
        float2 value = make_float2(0.0f, 0.0f);
#pragma unroll
        for (int w = 0; w < kTileWarps; ++w) {
          const int place = w * from.rows + row - first;
          const float2 part = *reinterpret_cast<const float2*>(from.values + place * kDim + d);
          value.x = fmaf(part.x, factors[w], value.x);
          value.y = fmaf(part.y, factors[w], value.y);
        }
        if (partial) {
          *reinterpret_cast<float2*>(partials.values + index * rows_.dim_v + d) = value;
        } else {
          *reinterpret_cast<uint32_t*>(out + d) = pack_pair<T>(value.x * scale, value.y * scale);
        }
      }
    }
  }

 private:
  static constexpr int kKeyTiles = kWarpKeys / 8;
  static constexpr int kDimTiles = kDim / 8;
  static constexpr bool kKeepQueries = kDim <= 128;  // in registers
  static constexpr bool kInt8 = sizeof(KV) == 1;

  __device__ uint32_t query_address(int k) const {
    return queries_at_ + SharedTile<kDecodeRows>::offset(lane_ % 16, 2 * k + lane_ / 16);
  }

  __device__ void multiply_keys(float (&scores)[kKeyTiles][4], const DecodeChunk& chunk) {
    const int row = warp_ * kWarpKeys + (lane_ / 16) * 8 + lane_ % 8;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      if constexpr (!kKeepQueries) load_matrices(queries_[0], query_address(k));
      uint32_t b[4];
      load_matrices(b, chunk.keys + SharedTile<kTileKeys>::offset(row, 2 * k + lane_ / 8 % 2));
      multiply_add<T>(scores[0], queries_[kKeepQueries ? k : 0], b[0], b[1]);
      multiply_add<T>(scores[1], queries_[kKeepQueries ? k : 0], b[2], b[3]);
    }
  }

  // Scores become weights; the running sums are brought to the new maxima.
  __device__ void weigh(float (&scores)[kKeyTiles][4], const DecodeChunk& chunk) {
    const float log_scale = rows_.scale * kLog2E;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float largest = maxima_[i];
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int c = 2 * i; c < 2 * i + 2; ++c) {
          const int column = warp_ * kWarpKeys + n * 8 + lane_ % 4 * 2 + c % 2;
          float score = scores[n][c];
          if constexpr (kInt8) score *= chunk.key_scale[column];
          if (rows_.softcap > 0.0f) {
            score = rows_.softcap * tanhf(score * rows_.scale / rows_.softcap) * kLog2E;
          } else {
            score *= log_scale;
          }
          const int position = chunk.position + column;
          scores[n][c] = position >= first_[i] && position <= last_[i] ? score : -INFINITY;
          largest = fmaxf(largest, scores[n][c]);
        }
      }
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
      // A warp whose keys the row does not see keeps weights of zero.
      const float base = largest == -INFINITY ? 0.0f : largest;
      const float factor = exp2f(maxima_[i] - base);
      maxima_[i] = largest;
      sums_[i] *= factor;
#pragma unroll
      for (int d = 0; d < kDimTiles; ++d) {
        values_[d][2 * i] *= factor;
        values_[d][2 * i + 1] *= factor;
      }
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int c = 2 * i; c < 2 * i + 2; ++c) {
          scores[n][c] = exp2f(scores[n][c] - base);
          sums_[i] += scores[n][c];
        }
      }
    }
  }

  __device__ void multiply_values(float (&weights)[kKeyTiles][4], const DecodeChunk& chunk) {
    if constexpr (kInt8) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          weights[n][c] *= chunk.value_scale[warp_ * kWarpKeys + n * 8 + lane_ % 4 * 2 + c % 2];
        }
      }
    }
    const uint32_t a[4] = {pack_pair<T>(weights[0][0], weights[0][1]), pack_pair<T>(weights[0][2], weights[0][3]),
                           pack_pair<T>(weights[1][0], weights[1][1]), pack_pair<T>(weights[1][2], weights[1][3])};
#pragma unroll
    for (int d = 0; d < kDimTiles; d += 2) {
      uint32_t b[4];
      const int row = warp_ * kWarpKeys + lane_ % 16;
      load_matrices_transposed(b, chunk.values + SharedTile<kTileKeys>::offset(row, d + lane_ / 16));
      multiply_add<T>(values_[d], a, b[0], b[1]);
      multiply_add<T>(values_[d + 1], a, b[2], b[3]);
    }
  }

  const AttentionRows& rows_;
  const int lane_;
  const int warp_;
  uint32_t queries_at_ = 0;
  int first_[2];  // positions that the lane's rows see
  int last_[2];
  uint32_t queries_[kKeepQueries ? kDim / 16 : 1][4];
  float values_[kDimTiles][4];
  float maxima_[2];
  float sums_[2];
};

// Copies a tile's queries to shared memory, by the block's first kTileThreads threads. The caller commits.
template <class T, int kDim>
__device__ void fetch_queries(const AttentionRows& rows, const Tile& tile, uint32_t to) {
  constexpr int kChunks = kDim / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kDecodeRows * kChunks; i += kTileThreads) {
    const int row = i / kChunks;
    const int chunk = i % kChunks;
    const bool valid = row < tile.rows() && chunk * 8 < rows.dim_k;
    const T* from = static_cast<const T*>(rows.q);
    if (valid) from += row_place(tile, row, rows.q_stride, rows.dim_k) + chunk * 8;
    copy_async(to + SharedTile<kDecodeRows>::offset(row, chunk), from, valid);
  }
}

// A tile by a block of kTileThreads.
template <class T, class KV, int kDim, class Source>
class DecodeAttention {
 public:
  using Shared = DecodeShared<kDim>;

  __device__ DecodeAttention(const AttentionRows& rows, const Tile& tile, const Source& source, Shared& shared)
      : rows_(rows), tile_(tile), loader_{source, tile.begin, tile.end}, shared_(shared), own_(rows) {}

  __device__ void run(const Partials& partials) {
    __syncthreads();  // the last tile's sums are read
    const uint32_t queries = shared_address(shared_.q);
    const int first = tile_.begin / kTileKeys * kTileKeys;
    if (tile_.begin < tile_.end) {
      fetch_queries<T, kDim>(rows_, tile_, queries);
      load(first, 0);
      wait_copies<0>();
    }
    __syncthreads();
    own_.start(tile_, queries);
    if constexpr (Shared::kStages == 2) {
      run_ahead(first);
    } else {
      run_in_turn(first);
    }
    // The sums take the place of the keys.
    static_assert(sizeof(Shared::k) + sizeof(Shared::v) >= kTileWarps * kDecodeRows * kDim * sizeof(float));
    const DecodeSums sums{reinterpret_cast<float*>(shared_.k), &shared_.maxima[0][0], &shared_.sums[0][0], kDecodeRows};
    own_.share(tile_, 0, sums);
    __syncthreads();
    own_.merge(tile_, 0, sums, partials);
  }

 private:
  __device__ void run_ahead(int first) {
    int stage = 0;
    for (int chunk = first; chunk < tile_.end; chunk += kTileKeys) {
      const bool more = chunk + kTileKeys < tile_.end;
      if (more) load(chunk + kTileKeys, stage ^ 1);
      own_.step(chunk_at(chunk, stage));
      if (more) wait_copies<0>();
      __syncthreads();  // the next one is there, and this one's place may be filled again
      stage ^= 1;
    }
  }

  __device__ void run_in_turn(int first) {
    for (int chunk = first; chunk < tile_.end; chunk += kTileKeys) {
      own_.step(chunk_at(chunk, 0));
      __syncthreads();
      if (chunk + kTileKeys >= tile_.end) break;
      load(chunk + kTileKeys, 0);
      wait_copies<0>();
      __syncthreads();
    }
  }

  __device__ void load(int chunk, int stage) {
    loader_.template load<true>(chunk, shared_.k[stage], shared_.key_scale[stage], rows_.dim_k);
    loader_.template load<false>(chunk, shared_.v[stage], shared_.value_scale[stage], rows_.dim_v);
    commit_copies();
  }

  __device__ DecodeChunk chunk_at(int position, int stage) const {
    return {position, shared_address(shared_.k[stage]), shared_address(shared_.v[stage]), shared_.key_scale[stage],
            shared_.value_scale[stage]};
  }

  const AttentionRows& rows_;
  const Tile& tile_;
  const ChunkLoader<T, KV, kDim, Source> loader_;
  Shared& shared_;
  DecodeWarp<T, KV, kDim> own_;
};

}  // namespace turbomind::cuda
