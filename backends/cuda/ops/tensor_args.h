// SPDX-License-Identifier: Apache-2.0
//
// Checks of op arguments. The core has checked shapes against each other; what is checked here is what the kernels rely
// on: dtypes, ranks and unit inner strides. Values in device memory cannot be seen from here.
#pragma once

#include <string>

#include "plan.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cuda {

inline void require(bool condition, const char* argument, const std::string& expected) {
  if (!condition) throw abi::Error(TM_INVALID_ARGUMENT, std::string(argument) + ": expected " + expected);
}

inline bool given(const tm_tensor& tensor) { return tensor.data != nullptr; }

inline void require_dtype(const tm_tensor& tensor, tm_dtype dtype, const char* argument) {
  require(tensor.dtype == dtype, argument,
          "dtype " + std::to_string(dtype) + ", found " + std::to_string(tensor.dtype));
}

inline void require_rank(const tm_tensor& tensor, int32_t rank, const char* argument) {
  require(tensor.ndim == rank, argument, std::to_string(rank) + " dimensions, found " + std::to_string(tensor.ndim));
  require(tensor.shape[rank - 1] <= 1 || tensor.stride[rank - 1] == 1, argument, "an inner stride of 1");
}

// [rows, cols] of dtype.
inline void require_matrix(const tm_tensor& tensor, tm_dtype dtype, const char* argument) {
  require_dtype(tensor, dtype, argument);
  require_rank(tensor, 2, argument);
}

// [n] of dtype; may be left out.
inline void require_vector(const tm_tensor& tensor, tm_dtype dtype, const char* argument) {
  if (!given(tensor)) return;
  require_dtype(tensor, dtype, argument);
  require_rank(tensor, 1, argument);
}

// [rows, heads, dim] of dtype, the heads of a row side by side.
inline void require_heads(const tm_tensor& tensor, tm_dtype dtype, const char* argument) {
  require_dtype(tensor, dtype, argument);
  require_rank(tensor, 3, argument);
  require(tensor.shape[1] <= 1 || tensor.stride[1] == tensor.shape[2], argument, "heads that lie together");
}

inline const Plan& plan_arg(const tm_plan* handle) {
  require(handle != nullptr, "plan", "a plan");
  return *abi::as<const Plan>(handle);
}

// A plan whose step knows where the pool's blocks are.
inline const Plan& paged_plan_arg(const tm_plan* handle, const tm_kv_spec& spec) {
  const Plan& plan = plan_arg(handle);
  require(plan.num_seqs() == 0 || plan.has_blocks(), "plan", "context_lens and block_table");
  require(plan.num_seqs() == 0 || plan.limits().block_size == spec.block_size, "plan", "the pool's block_size");
  return plan;
}

}  // namespace turbomind::cuda
