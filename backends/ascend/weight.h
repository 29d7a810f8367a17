// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "stream.h"
#include "view.h"

namespace turbomind::ascend {

// How a weight lies in device memory: row-major [experts, rows, cols] in the dtype of the activations that it meets or,
// with nz, in fractals of 16 x 16: [ceil(cols / 16), ceil(rows / 16), 16 rows, 16 cols], zeros beyond the matrix, which
// the matrix unit reads without rearranging.
struct WeightLayout {
  AclType type;
  int64_t rows;  // of one expert
  int64_t cols;
  int64_t experts;  // 0: a plain matrix
  bool nz;
  size_t bytes;
};

// Empty: the weight is taken; else why not. Quantised formats are left to the core's conversion.
std::string unsupported_reason(const tm_weight_desc& desc);
WeightLayout make_weight_layout(const Context& context, const tm_weight_desc& desc);

// A packed weight in device memory that the caller owns.
class Weight {
 public:
  Weight(Stream& stream, const tm_weight_desc& desc, void* dst);

  const WeightLayout& layout() const { return layout_; }
  View matrix() const;      // [rows, cols]
  View transposed() const;  // [cols, rows] or, of experts, [experts, cols, rows]: a product's second operand

 private:
  void* data_;
  WeightLayout layout_;
};

}  // namespace turbomind::ascend
