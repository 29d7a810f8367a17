// SPDX-License-Identifier: Apache-2.0
//
// Loops over rows: on the calling thread when there is little to do, else on the pool. Rows are independent, so where
// they run does not matter.
#pragma once

#include "ops/tensor_args.h"
#include "stream.h"

namespace turbomind::cpu {

// Below this many elements a call is quicker on one thread than the handing out of work.
inline constexpr int64_t kInlineElements = 16384;

// fn(row) for each row, on the pool if there is enough to do.
template <class Fn>
void for_rows(Stream& stream, int64_t rows, int64_t cols, Fn fn) {
  if (rows * cols <= kInlineElements) {
    for (int64_t row = 0; row < rows; ++row) fn(row);
    return;
  }
  stream.pool().parallel_ranges(rows, kInlineElements / 2 / cols + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) fn(row);
  });
}

// Rows of a [T, H] or [T, heads, dim] tensor, counted over both leading axes.
struct Rows {
  float* data;
  int64_t outer;
  int64_t inner;
  int64_t outer_stride;
  int64_t inner_stride;
  int64_t cols;

  float* row(int64_t i) const { return data + i / inner * outer_stride + i % inner * inner_stride; }
};

inline Rows rows_arg(const tm_tensor& tensor, const char* argument) {
  require_dtype<float>(tensor, argument);
  require(tensor.ndim == 2 || tensor.ndim == 3, argument, "2 or 3 dimensions, found " + std::to_string(tensor.ndim));
  auto* data = static_cast<float*>(tensor.data);
  if (tensor.ndim == 2) return {data, tensor.shape[0], 1, tensor.stride[0], 0, tensor.shape[1]};
  return {data, tensor.shape[0], tensor.shape[1], tensor.stride[0], tensor.stride[1], tensor.shape[2]};
}

}  // namespace turbomind::cpu
