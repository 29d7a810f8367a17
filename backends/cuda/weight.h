// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "stream.h"

namespace turbomind::cuda {

// Empty: the weight is taken; else why not. Quantised formats are left to the core's conversion.
std::string unsupported_reason(const tm_weight_desc& desc);
size_t packed_bytes(const tm_weight_desc& desc);

// A packed weight in device memory that the caller owns: row-major [rows, stride] in the dtype of the activations that
// it meets, expert by expert. Rows are padded with zeros to whole vectors of 16 bytes, as tensor cores want them.
class Weight {
 public:
  Weight(Stream& stream, const tm_weight_desc& desc, void* dst);

  const void* data() const { return data_; }
  tm_dtype dtype() const { return dtype_; }
  int64_t rows() const { return rows_; }  // of one expert
  int64_t cols() const { return cols_; }
  int64_t stride() const { return stride_; }            // elements
  int32_t num_experts() const { return num_experts_; }  // 0: a plain matrix

 private:
  void pack_part(Stream& stream, const tm_weight_part& part, tm_dtype source, std::byte* to) const;

  void* data_;
  tm_dtype dtype_;
  int64_t rows_;
  int64_t cols_;
  int64_t stride_;
  int32_t num_experts_;
};

}  // namespace turbomind::cuda
