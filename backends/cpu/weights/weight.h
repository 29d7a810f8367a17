// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/panels.h"
#include "stream.h"

namespace turbomind::cpu {

// A packed weight in memory the caller owns: one matrix, or one per expert.
class Weight {
 public:
  // Throws abi::Error: TM_UNSUPPORTED for a weight that query() refuses, TM_INVALID_ARGUMENT for inconsistent parts.
  Weight(Stream& stream, const tm_weight_desc& desc, void* dst);

  int64_t rows() const { return first_.rows; }
  int64_t cols() const { return first_.cols; }
  int num_experts() const { return num_experts_; }  // 0: a plain matrix
  bool is_embedding() const { return is_embedding_; }

  // Integer dot products on quantised activations, or products of bfloat16; otherwise float32.
  bool uses_int8() const { return uses_int8_; }
  bool uses_bf16() const { return uses_bf16_; }

  Panels panels(int expert = 0) const {
    Panels panels = first_;
    panels.data += static_cast<size_t>(expert) * matrix_bytes_;
    return panels;
  }

 private:
  Panels first_;
  size_t matrix_bytes_;
  int num_experts_;
  bool is_embedding_;
  bool uses_int8_;
  bool uses_bf16_;
};

}  // namespace turbomind::cpu
