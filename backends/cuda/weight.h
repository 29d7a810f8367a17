// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "stream.h"

namespace turbomind::cuda {

// Empty: the weight is taken; else why not.
std::string unsupported_reason(const tm_weight_desc& desc);
size_t packed_bytes(const tm_weight_desc& desc);

// A packed weight in device memory that the caller owns: row-major [rows, cols] of the source's dtype, expert by
// expert.
class Weight {
 public:
  Weight(Stream& stream, const tm_weight_desc& desc, void* dst);

  const void* data() const { return data_; }
  tm_dtype dtype() const { return dtype_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int32_t num_experts() const { return num_experts_; }  // 0: a plain matrix

 private:
  void* data_;
  tm_dtype dtype_;
  int64_t rows_;
  int64_t cols_;
  int32_t num_experts_;
};

}  // namespace turbomind::cuda
