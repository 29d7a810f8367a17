// SPDX-License-Identifier: Apache-2.0
//
// Typed views of op arguments. The core has checked shapes against each other; what is checked here is what this
// backend relies on: the dtype, the rank and the unit inner stride.
#pragma once

#include <cstdint>
#include <string>

#include "dtype.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cpu {

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr tm_dtype value = TM_F32;
};
template <>
struct DtypeOf<F16> {
  static constexpr tm_dtype value = TM_F16;
};
template <>
struct DtypeOf<Bf16> {
  static constexpr tm_dtype value = TM_BF16;
};
template <>
struct DtypeOf<int8_t> {
  static constexpr tm_dtype value = TM_I8;
};
template <>
struct DtypeOf<uint8_t> {
  static constexpr tm_dtype value = TM_U8;
};
template <>
struct DtypeOf<int32_t> {
  static constexpr tm_dtype value = TM_I32;
};
template <>
struct DtypeOf<uint32_t> {
  static constexpr tm_dtype value = TM_U32;
};
template <>
struct DtypeOf<int64_t> {
  static constexpr tm_dtype value = TM_I64;
};
template <>
struct DtypeOf<uint64_t> {
  static constexpr tm_dtype value = TM_U64;
};

inline void require(bool condition, const char* argument, const std::string& expected) {
  if (!condition) throw abi::Error(TM_INVALID_ARGUMENT, std::string(argument) + ": expected " + expected);
}

inline bool given(const tm_tensor& tensor) { return tensor.data != nullptr; }

template <class T>
void require_dtype(const tm_tensor& tensor, const char* argument) {
  if (tensor.dtype != DtypeOf<T>::value) {
    throw abi::Error(TM_INVALID_ARGUMENT, std::string(argument) + ": expected dtype " +
                                              std::to_string(DtypeOf<T>::value) + ", found " +
                                              std::to_string(tensor.dtype));
  }
}

// A matrix with contiguous rows `stride` elements apart.
template <class T>
struct Matrix {
  T* data;
  int64_t rows;
  int64_t cols;
  int64_t stride;

  T* row(int64_t index) const { return data + index * stride; }
};

// [rows, cols]
template <class T>
Matrix<T> matrix_arg(const tm_tensor& tensor, const char* argument) {
  require_dtype<T>(tensor, argument);
  require(tensor.ndim == 2, argument, "2 dimensions, found " + std::to_string(tensor.ndim));
  require(tensor.shape[1] <= 1 || tensor.stride[1] == 1, argument, "an inner stride of 1");
  return {static_cast<T*>(tensor.data), tensor.shape[0], tensor.shape[1], tensor.stride[0]};
}

// [n]; nullptr when the argument is not given.
template <class T>
T* vector_arg(const tm_tensor& tensor, const char* argument) {
  if (!given(tensor)) return nullptr;
  require_dtype<T>(tensor, argument);
  require(tensor.ndim == 1, argument, "1 dimension, found " + std::to_string(tensor.ndim));
  require(tensor.shape[0] <= 1 || tensor.stride[0] == 1, argument, "an inner stride of 1");
  return static_cast<T*>(tensor.data);
}

}  // namespace turbomind::cpu
