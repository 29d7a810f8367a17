// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "ops.h"
#include "ops/row_loop.h"

namespace turbomind::cpu {
namespace {

struct RawRows {
  uint8_t* data;
  int64_t count;
  int64_t stride;  // bytes
  size_t bytes;    // of one row

  uint8_t* row(int64_t i) const { return data + i * stride; }
};

RawRows raw_rows(const tm_tensor& tensor) {
  const auto element = static_cast<int64_t>(dtype_bytes(tensor.dtype));
  const int64_t cols = tensor.ndim == 1 ? 1 : tensor.shape[1];
  return {static_cast<uint8_t*>(tensor.data), tensor.shape[0], tensor.stride[0] * element,
          static_cast<size_t>(cols * element)};
}

void require_index(int64_t index, int64_t rows, const char* argument) {
  require(index < rows, argument, "values below " + std::to_string(rows) + ", found " + std::to_string(index));
}

}  // namespace

void CpuOps::gather_rows(Stream&, const tm_gather_rows_args& args, const tm_workspace&) {
  const RawRows in = raw_rows(args.in);
  const RawRows out = raw_rows(args.out);
  const int32_t* index = vector_arg<int32_t>(args.index, "index");
  for (int64_t i = 0; i < out.count; ++i) {
    require_index(index[i], in.count, "index");
    if (index[i] >= 0) std::memcpy(out.row(i), in.row(index[i]), out.bytes);
  }
}

void CpuOps::scatter_rows(Stream&, const tm_scatter_rows_args& args, const tm_workspace&) {
  const RawRows in = raw_rows(args.in);
  const RawRows out = raw_rows(args.out);
  const int32_t* index = vector_arg<int32_t>(args.index, "index");
  for (int64_t i = 0; i < in.count; ++i) {
    require_index(index[i], out.count, "index");
    if (index[i] >= 0) std::memcpy(out.row(index[i]), in.row(i), in.bytes);
  }
}

}  // namespace turbomind::cpu
