// SPDX-License-Identifier: Apache-2.0
#include "kernels/common.cuh"
#include "kernels/rows.h"

namespace turbomind::cuda {
namespace {

constexpr int kThreads = 256;

struct RawRows {
  std::byte* data;
  int64_t stride;  // bytes
};

int64_t element_bytes(tm_dtype dtype) {
  switch (dtype) {
    case TM_F32:
    case TM_I32:
    case TM_U32:
      return 4;
    case TM_F16:
    case TM_BF16:
      return 2;
    case TM_I64:
    case TM_U64:
      return 8;
    default:
      return 1;
  }
}

RawRows raw_rows(const tm_tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data), tensor.stride[0] * element_bytes(tensor.dtype)};
}

// Row i goes from in[index[i]] to out[i] (gather) or from in[i] to out[index[i]]; a negative index, or one past the
// last of the indexed rows, moves nothing.
template <class Unit, bool kGather>
__global__ void __launch_bounds__(kThreads)
    move_rows(RawRows in, RawRows out, const int32_t* index, int64_t rows, int64_t indexed_rows, int64_t units) {
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (unit >= units) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const int64_t other = index[row];
    if (other < 0 || other >= indexed_rows) continue;
    const auto* from = reinterpret_cast<const Unit*>(in.data + (kGather ? other : row) * in.stride);
    auto* to = reinterpret_cast<Unit*>(out.data + (kGather ? row : other) * out.stride);
    to[unit] = from[unit];
  }
}

template <class Unit, bool kGather>
void launch_units(cudaStream_t stream, const RawRows& in, const RawRows& out, const int32_t* index, int64_t rows,
                  int64_t indexed_rows, int64_t bytes) {
  const int64_t units = bytes / static_cast<int64_t>(sizeof(Unit));
  const int threads = static_cast<int>(units < kThreads ? ceil_div<int64_t>(units, kWarp) * kWarp : kThreads);
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(units, threads)), grid_y(rows));
  move_rows<Unit, kGather><<<grid, threads, 0, stream>>>(in, out, index, rows, indexed_rows, units);
}

template <bool kGather>
void launch_move(cudaStream_t stream, const tm_tensor& in_tensor, const tm_tensor& out_tensor,
                 const tm_tensor& index_tensor, const char* name) {
  const RawRows in = raw_rows(in_tensor);
  const RawRows out = raw_rows(out_tensor);
  const auto* index = static_cast<const int32_t*>(index_tensor.data);
  const int64_t rows = index_tensor.shape[0];
  const int64_t indexed_rows = (kGather ? in_tensor : out_tensor).shape[0];
  const int64_t bytes = (in_tensor.ndim == 1 ? 1 : in_tensor.shape[1]) * element_bytes(in_tensor.dtype);
  if (rows == 0 || bytes == 0) return;
  const auto fits = [&](int64_t unit) {
    return (reinterpret_cast<uintptr_t>(in.data) | reinterpret_cast<uintptr_t>(out.data) |
            static_cast<uintptr_t>(in.stride | out.stride | bytes)) %
               static_cast<uintptr_t>(unit) ==
           0;
  };
  if (fits(16)) {
    launch_units<uint4, kGather>(stream, in, out, index, rows, indexed_rows, bytes);
  } else if (fits(4)) {
    launch_units<uint32_t, kGather>(stream, in, out, index, rows, indexed_rows, bytes);
  } else {
    launch_units<uint8_t, kGather>(stream, in, out, index, rows, indexed_rows, bytes);
  }
  check_launch(name);
}

struct EmbeddingArgs {
  const int32_t* ids;
  const void* table;
  void* out;
  int64_t table_rows;
  int64_t table_stride;
  int64_t out_stride;
  int64_t row_offset;
  int64_t tokens;
  int64_t cols;
  float scale;
};

template <class From, class To, int N>
__global__ void __launch_bounds__(kThreads) embed_rows(const EmbeddingArgs args) {
  const int64_t col = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (col >= args.cols) return;
  for (int64_t token = blockIdx.y; token < args.tokens; token += gridDim.y) {
    const int64_t row = args.ids[token] - args.row_offset;
    Pack<To, N> y;
    if (row >= 0 && row < args.table_rows) {
      const auto* from = static_cast<const From*>(args.table) + row * args.table_stride + col;
      const auto x = *reinterpret_cast<const Pack<From, N>*>(from);
#pragma unroll
      for (int i = 0; i < N; ++i) y.v[i] = from_float<To>(to_float(x.v[i]) * args.scale);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) y.v[i] = from_float<To>(0.0f);
    }
    *reinterpret_cast<Pack<To, N>*>(static_cast<To*>(args.out) + token * args.out_stride + col) = y;
  }
}

template <class From, class To>
void launch_embed(cudaStream_t stream, const EmbeddingArgs& args) {
  constexpr int kCount = 4;
  const bool vectors = aligned_to_vector(args.table) && aligned_to_vector(args.out) &&
                       args.table_stride % kCount == 0 && args.out_stride % kCount == 0 && args.cols % kCount == 0;
  const int64_t chunks = vectors ? args.cols / kCount : args.cols;
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(chunks, kThreads)), grid_y(args.tokens));
  if (vectors) {
    embed_rows<From, To, kCount><<<grid, kThreads, 0, stream>>>(args);
  } else {
    embed_rows<From, To, 1><<<grid, kThreads, 0, stream>>>(args);
  }
}

}  // namespace

void launch_gather_rows(cudaStream_t stream, const tm_gather_rows_args& args) {
  launch_move<true>(stream, args.in, args.out, args.index, "gather_rows");
}

void launch_scatter_rows(cudaStream_t stream, const tm_scatter_rows_args& args) {
  launch_move<false>(stream, args.in, args.out, args.index, "scatter_rows");
}

void launch_embedding(cudaStream_t stream, const tm_embedding_args& op, const EmbeddingTable& table) {
  EmbeddingArgs args{};
  args.ids = static_cast<const int32_t*>(op.ids.data);
  args.table = table.data;
  args.out = op.out.data;
  args.table_rows = table.rows;
  args.table_stride = table.stride;
  args.out_stride = op.out.stride[0];
  args.row_offset = op.row_offset;
  args.tokens = op.ids.shape[0];
  args.cols = table.cols;
  args.scale = op.scale;
  if (args.tokens == 0 || args.cols == 0) return;
  dispatch_float(table.dtype, "weight", [&](auto from) {
    dispatch_float(op.out.dtype, "out", [&](auto to) { launch_embed<decltype(from), decltype(to)>(stream, args); });
  });
  check_launch("embedding");
}

}  // namespace turbomind::cuda
