// SPDX-License-Identifier: Apache-2.0
#include "turbomind/core/tensor.h"

#include <sstream>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

// Strides of the axes [first, ndim) as if they were contiguous.
void set_inner_strides(Tensor& tensor, int first) {
  int64_t stride = 1;
  for (int i = tensor.ndim - 1; i >= first; --i) {
    tensor.stride[i] = stride;
    stride *= tensor.shape[i];
  }
}

// True if the axes [first, ndim) have no gaps.
bool inner_contiguous(const Tensor& tensor, int first) {
  int64_t stride = 1;
  for (int i = tensor.ndim - 1; i >= first; --i) {
    if (tensor.shape[i] != 1 && tensor.stride[i] != stride) return false;
    stride *= tensor.shape[i];
  }
  return true;
}

void* offset(const Tensor& tensor, int64_t elements) {
  return static_cast<char*>(tensor.data) + elements * static_cast<int64_t>(dtype_size(tensor.dtype));
}

void check_range(const char* what, int64_t begin, int64_t count, int64_t size) {
  check(begin >= 0 && count >= 0 && begin <= size - count, ErrorCode::kInvalidArgument, what,
        ": expected a range inside [0, ", size, "), found [", begin, ", ", begin + count, ")");
}

}  // namespace

Tensor make_tensor(void* data, DType dtype, std::span<const int64_t> shape) {
  check(!shape.empty() && shape.size() <= TM_MAX_DIMS, ErrorCode::kInvalidArgument, "tensor: expected 1 to ",
        TM_MAX_DIMS, " dimensions, found ", shape.size());
  Tensor tensor{.data = data, .dtype = dtype, .ndim = static_cast<int32_t>(shape.size())};
  for (size_t i = 0; i < shape.size(); ++i) {
    check(shape[i] >= 0, ErrorCode::kInvalidArgument, "tensor: expected sizes >= 0, found ", shape[i], " on axis ", i);
    tensor.shape[i] = shape[i];
  }
  set_inner_strides(tensor, 0);
  return tensor;
}

int64_t num_elements(const Tensor& tensor) {
  int64_t count = 1;
  for (int i = 0; i < tensor.ndim; ++i) count *= tensor.shape[i];
  return count;
}

size_t nbytes(const Tensor& tensor) { return static_cast<size_t>(num_elements(tensor)) * dtype_size(tensor.dtype); }

bool is_contiguous(const Tensor& tensor) { return inner_contiguous(tensor, 0); }

std::string to_string(const Tensor& tensor) {
  if (tensor.ndim == 0) return "no tensor";
  std::ostringstream text;
  const auto list = [&](const int64_t* values) {
    text << '[';
    for (int i = 0; i < tensor.ndim; ++i) text << (i ? ", " : "") << values[i];
    text << ']';
  };
  text << dtype_name(tensor.dtype) << ' ';
  list(tensor.shape);
  if (!is_contiguous(tensor)) {
    text << " stride ";
    list(tensor.stride);
  }
  return text.str();
}

Tensor row_slice(const Tensor& tensor, int64_t begin, int64_t count) {
  check_range("row_slice", begin, count, tensor.shape[0]);
  Tensor slice = tensor;
  slice.data = offset(tensor, begin * tensor.stride[0]);
  slice.shape[0] = count;
  return slice;
}

Tensor column_slice(const Tensor& tensor, int64_t begin, int64_t count) {
  const int last = tensor.ndim - 1;
  check_range("column_slice", begin, count, tensor.shape[last]);
  Tensor slice = tensor;
  slice.data = offset(tensor, begin);
  slice.shape[last] = count;
  return slice;
}

Tensor reshape(const Tensor& tensor, std::span<const int64_t> shape) {
  Tensor result = make_tensor(tensor.data, tensor.dtype, shape);
  check(num_elements(result) == num_elements(tensor), ErrorCode::kInvalidArgument, "reshape: expected ",
        num_elements(tensor), " elements as in ", to_string(tensor), ", found ", to_string(result));
  if (is_contiguous(tensor)) return result;
  check(shape[0] == tensor.shape[0] && inner_contiguous(tensor, 1), ErrorCode::kInvalidArgument,
        "reshape: expected a contiguous tensor, or the same strided rows, found ", to_string(tensor), " to ",
        to_string(result));
  result.stride[0] = tensor.stride[0];
  return result;
}

}  // namespace turbomind
