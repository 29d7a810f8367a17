// SPDX-License-Identifier: Apache-2.0
//
// [rows, heads, dim] tensors: the heads of a row lie together, rows may be strided.
#pragma once

#include <type_traits>

#include "ops/tensor_args.h"

namespace turbomind::cpu {

template <class T>
struct Heads {
  T* data;
  int64_t rows;
  int64_t heads;
  int64_t dim;
  int64_t stride;  // between rows

  T* head(int64_t row, int64_t head) const { return data + row * stride + head * dim; }
};

template <class T>
Heads<T> heads_arg(const tm_tensor& tensor, const char* argument) {
  require_dtype<std::remove_const_t<T>>(tensor, argument);
  require(tensor.ndim == 3, argument, "3 dimensions, found " + std::to_string(tensor.ndim));
  require(tensor.shape[2] <= 1 || tensor.stride[2] == 1, argument, "an inner stride of 1");
  require(tensor.shape[1] <= 1 || tensor.stride[1] == tensor.shape[2], argument, "heads that lie together");
  return {static_cast<T*>(tensor.data), tensor.shape[0], tensor.shape[1], tensor.shape[2], tensor.stride[0]};
}

}  // namespace turbomind::cpu
