// SPDX-License-Identifier: Apache-2.0
//
// Argument checks of the op front: cheap comparisons, always on; text is only made on failure.
#pragma once

#include <initializer_list>

#include "turbomind/core/error.h"
#include "turbomind/core/tensor.h"
#include "turbomind/runtime/device.h"

namespace turbomind {

inline constexpr int64_t kAny = -1;  // in an expected shape

// One op's arguments. Every method throws kInvalidArgument "<op>: <argument>: expected ..., found ...".
class ArgumentCheck {
 public:
  ArgumentCheck(const char* op, const Device& device) : op_(op), device_(device) {}

  // Given, of this dtype, these sizes (kAny matches all) and contiguous but for the rows of the first axis.
  void tensor(const char* name, const Tensor& value, DType dtype, std::initializer_list<int64_t> shape) const;
  // As tensor(), but without gaps between rows.
  void dense(const char* name, const Tensor& value, DType dtype, std::initializer_list<int64_t> shape) const;
  // As tensor(), of a dtype the device takes as activations.
  void activation(const char* name, const Tensor& value, std::initializer_list<int64_t> shape) const;
  // As dense(), or not given.
  void optional(const char* name, const Tensor& value, DType dtype, std::initializer_list<int64_t> shape) const;
  void same_shape(const char* name, const Tensor& value, const Tensor& like) const;
  // Any other condition on an argument.
  template <class Found>
  void require(bool condition, const char* name, const char* expected, const Found& found) const {
    if (!condition) [[unlikely]] {
      fail(ErrorCode::kInvalidArgument, op_, ": ", name, ": expected ", expected, ", found ", found);
    }
  }
  void handle(const char* name, const void* value) const { require(value != nullptr, name, "a handle", "NULL"); }
  void kind(tm_activation_kind value) const;
  void ndim(const char* name, const Tensor& value, int min, int max) const;
  void kv_pool(const tm_kv_pool& pool) const;

 private:
  void shape(const char* name, const Tensor& value, std::initializer_list<int64_t> shape) const;
  [[noreturn]] void fail_tensor(const char* name, const Tensor& found, const char* dtype,
                                std::initializer_list<int64_t> shape) const;

  const char* op_;
  const Device& device_;
};

}  // namespace turbomind
