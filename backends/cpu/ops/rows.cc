// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "ops.h"
#include "ops/row_ranges.h"
#include "ops/tensor_args.h"
#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cpu {
namespace {

constexpr int64_t kBytesPerCost = 4;

// Rows of any dtype.
struct RawRows {
  std::byte* data;
  int64_t count;
  int64_t stride;  // bytes
  int64_t bytes;   // of one row

  std::byte* row(int64_t index) const { return data + index * stride; }
};

RawRows raw_rows(const tm_tensor& tensor, const char* argument) {
  require(tensor.ndim == 1 || tensor.ndim == 2, argument, "1 or 2 dimensions, found " + std::to_string(tensor.ndim));
  const auto element = abi::dtype_bytes(tensor.dtype);
  const int64_t cols = tensor.ndim == 1 ? 1 : tensor.shape[1];
  return {static_cast<std::byte*>(tensor.data), tensor.shape[0], tensor.stride[0] * element, cols * element};
}

// Every index names one of `count` rows, or none.
void require_indices(const int32_t* index, int64_t num_indices, int64_t count) {
  for (int64_t i = 0; i < num_indices; ++i) {
    if (index[i] < count) continue;
    require(false, "index", "values below " + std::to_string(count) + ", found " + std::to_string(index[i]));
  }
}

}  // namespace

void CpuOps::gather_rows(Stream& stream, const tm_gather_rows_args& args, const tm_workspace&) {
  const RawRows in = raw_rows(args.in, "in");
  const RawRows out = raw_rows(args.out, "out");
  const int32_t* index = vector_arg<int32_t>(args.index, "index");
  require(in.bytes == out.bytes, "out", "rows as wide as in's");
  require_indices(index, out.count, in.count);
  for_row_ranges(stream.pool(), out.count, out.bytes / kBytesPerCost, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (index[i] >= 0) std::memcpy(out.row(i), in.row(index[i]), static_cast<size_t>(out.bytes));
    }
  });
}

void CpuOps::scatter_rows(Stream& stream, const tm_scatter_rows_args& args, const tm_workspace&) {
  const RawRows in = raw_rows(args.in, "in");
  const RawRows out = raw_rows(args.out, "out");
  const int32_t* index = vector_arg<int32_t>(args.index, "index");
  require(in.bytes == out.bytes, "out", "rows as wide as in's");
  require_indices(index, in.count, out.count);
  for_row_ranges(stream.pool(), in.count, in.bytes / kBytesPerCost, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (index[i] >= 0) std::memcpy(out.row(index[i]), in.row(i), static_cast<size_t>(in.bytes));
    }
  });
}

}  // namespace turbomind::cpu
