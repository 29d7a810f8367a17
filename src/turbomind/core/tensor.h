// SPDX-License-Identifier: Apache-2.0
//
// Views of device or host memory. A Tensor owns nothing; these helpers only compute shapes, strides and offsets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "tm_backend.h"
#include "turbomind/core/dtype.h"

namespace turbomind {

using Tensor = tm_tensor;

// Contiguous row-major view. Throws kInvalidArgument for more than TM_MAX_DIMS dimensions or a negative one.
Tensor make_tensor(void* data, DType dtype, std::span<const int64_t> shape);
inline Tensor make_tensor(void* data, DType dtype, std::initializer_list<int64_t> shape) {
  return make_tensor(data, dtype, std::span<const int64_t>(shape.begin(), shape.size()));
}
// For inputs: the contract's views are not const, ops do not write to their inputs.
inline Tensor make_tensor(const void* data, DType dtype, std::initializer_list<int64_t> shape) {
  return make_tensor(const_cast<void*>(data), dtype, shape);
}

int64_t num_elements(const Tensor& tensor);
// Bytes of the elements themselves, without gaps between rows.
size_t nbytes(const Tensor& tensor);
bool is_contiguous(const Tensor& tensor);
inline bool is_given(const Tensor& tensor) { return tensor.data != nullptr; }
// "bf16 [3, 64] stride [128, 1]"; the stride only where rows have gaps.
std::string to_string(const Tensor& tensor);

// Rows [begin, begin + count) along the first axis.
Tensor row_slice(const Tensor& tensor, int64_t begin, int64_t count);
// Elements [begin, begin + count) along the last axis; the result's rows are strided.
Tensor column_slice(const Tensor& tensor, int64_t begin, int64_t count);
// Same memory, other shape. Splitting or joining trailing axes keeps strided rows, e.g. [T, heads * dim] with a row
// stride -> [T, heads, dim]; anything else needs a contiguous tensor. Throws kInvalidArgument.
Tensor reshape(const Tensor& tensor, std::span<const int64_t> shape);
inline Tensor reshape(const Tensor& tensor, std::initializer_list<int64_t> shape) {
  return reshape(tensor, std::span<const int64_t>(shape.begin(), shape.size()));
}

}  // namespace turbomind
