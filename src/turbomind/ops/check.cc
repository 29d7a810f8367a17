// SPDX-License-Identifier: Apache-2.0
#include "turbomind/ops/check.h"

#include <sstream>

namespace turbomind {
namespace {

bool matches(const Tensor& value, std::initializer_list<int64_t> shape) {
  if (value.ndim != static_cast<int32_t>(shape.size())) return false;
  const int64_t* size = shape.begin();
  for (int i = 0; i < value.ndim; ++i, ++size) {
    if (*size != kAny && *size != value.shape[i]) return false;
  }
  return true;
}

// Axes after the first have no gaps; rows of the first may, but must not overlap.
bool strided_rows_only(const Tensor& value) {
  int64_t stride = 1;
  for (int i = value.ndim - 1; i >= 1; --i) {
    if (value.shape[i] != 1 && value.stride[i] != stride) return false;
    stride *= value.shape[i];
  }
  return value.shape[0] <= 1 || (value.ndim == 1 ? value.stride[0] == 1 : value.stride[0] >= stride);
}

}  // namespace

void ArgumentCheck::fail_tensor(const char* name, const Tensor& found, const char* dtype,
                                std::initializer_list<int64_t> shape) const {
  std::ostringstream expected;
  expected << dtype << " [";
  for (const int64_t* size = shape.begin(); size != shape.end(); ++size) {
    if (size != shape.begin()) expected << ", ";
    if (*size == kAny) {
      expected << '*';
    } else {
      expected << *size;
    }
  }
  expected << "] with contiguous rows";
  const std::string text = found.data || found.ndim ? to_string(found) : "nothing";
  fail(ErrorCode::kInvalidArgument, op_, ": ", name, ": expected ", expected.str(), ", found ",
       found.data || found.ndim == 0 || num_elements(found) == 0 ? text : text + " with data NULL");
}

void ArgumentCheck::tensor(const char* name, const Tensor& value, DType dtype,
                           std::initializer_list<int64_t> shape) const {
  const bool has_data = value.data || (value.ndim > 0 && num_elements(value) == 0);
  if (!has_data || value.dtype != dtype || !matches(value, shape) || !strided_rows_only(value)) [[unlikely]] {
    fail_tensor(name, value, dtype_name(dtype), shape);
  }
}

void ArgumentCheck::dense(const char* name, const Tensor& value, DType dtype,
                          std::initializer_list<int64_t> shape) const {
  tensor(name, value, dtype, shape);
  require(is_contiguous(value), name, "a contiguous tensor", to_string(value));
}

void ArgumentCheck::activation(const char* name, const Tensor& value, std::initializer_list<int64_t> shape) const {
  if (!dtype_in(value.dtype, device_.props().activation_dtypes)) [[unlikely]] {
    fail_tensor(name, value, "an activation dtype of the backend", shape);
  }
  tensor(name, value, value.dtype, shape);
}

void ArgumentCheck::optional(const char* name, const Tensor& value, DType dtype,
                             std::initializer_list<int64_t> shape) const {
  if (is_given(value)) dense(name, value, dtype, shape);
}

void ArgumentCheck::same_shape(const char* name, const Tensor& value, const Tensor& like) const {
  bool same = value.dtype == like.dtype && value.ndim == like.ndim && strided_rows_only(value);
  for (int i = 0; same && i < like.ndim; ++i) same = value.shape[i] == like.shape[i];
  if (!same || (!value.data && num_elements(value) != 0)) [[unlikely]] {
    fail(ErrorCode::kInvalidArgument, op_, ": ", name, ": expected ", to_string(like), ", found ", to_string(value));
  }
}

void ArgumentCheck::ndim(const char* name, const Tensor& value, int min, int max) const {
  if (value.ndim < min || value.ndim > max) [[unlikely]] {
    fail(ErrorCode::kInvalidArgument, op_, ": ", name, ": expected ", min, " to ", max, " dimensions, found ",
         value.ndim);
  }
}

void ArgumentCheck::kind(tm_activation_kind value) const {
  require(value >= TM_ACTIVATION_NONE && value <= TM_ACTIVATION_RELU, "kind", "a tm_activation_kind",
          static_cast<int>(value));
}

void ArgumentCheck::kv_pool(const tm_kv_pool& pool) const {
  require(pool.data != nullptr, "kv", "a pool", "NULL");
  require(pool.spec.num_kv_heads > 0, "kv.spec.num_kv_heads", "a positive count", pool.spec.num_kv_heads);
  require(pool.spec.block_size > 0, "kv.spec.block_size", "a positive count", pool.spec.block_size);
}

}  // namespace turbomind
