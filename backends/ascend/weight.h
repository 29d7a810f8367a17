// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "stream.h"
#include "view.h"

namespace turbomind::ascend {

// How a weight lies in device memory. Three forms:
//  - dense, in the dtype of the activations that it meets: row-major [experts, rows, cols] or, with nz, in fractals of
//    16 x 16: [ceil(cols / 16), ceil(rows / 16), 16 rows, 16 cols], zeros beyond the matrix, which the matrix unit
//    reads without rearranging;
//  - int8 with one scale a row, for activations that are quantised as well: codes [rows, cols], then scales f32 [rows];
//  - int8 or int4 in groups along the columns, for 16-bit activations: codes [cols, width], then scales and offsets
//    [groups, width] in the activations' dtype; width is the rows, made even for int4.
struct WeightLayout {
  AclType type;  // of the activations
  int64_t rows;  // of one expert
  int64_t cols;
  int64_t experts = 0;  // 0: a plain matrix
  bool nz = false;
  AclType codes;      // type: dense; else kAclInt8, kAclInt4
  int64_t group = 0;  // columns that share a scale; 0: one scale a row
  int64_t width = 0;
  size_t scales_at = 0;  // bytes
  size_t offsets_at = 0;
  size_t bytes = 0;

  bool dense() const { return codes == type; }
  bool grouped() const { return group > 0; }
  int64_t groups() const { return (cols + group - 1) / group; }
};

// Empty: the weight is taken; else why not, which leaves it to the core's conversion to another format.
std::string unsupported_reason(const tm_weight_desc& desc);
WeightLayout make_weight_layout(const Context& context, const tm_weight_desc& desc);

// A packed weight in device memory that the caller owns.
class Weight {
 public:
  Weight(Stream& stream, const tm_weight_desc& desc, void* dst);

  const WeightLayout& layout() const { return layout_; }
  // Dense ones.
  View matrix() const;      // [rows, cols]
  View transposed() const;  // [cols, rows] or, of experts, [experts, cols, rows]: a product's second operand
  // Quantised ones: int8 [rows, cols] and f32 [rows], or [cols, width] and [groups, width].
  View codes() const;
  View scales() const;
  View offsets() const;  // of groups: a code and its offset give the multiple of the scale

 private:
  View at(size_t offset, AclType type, int64_t rows, int64_t cols) const;

  void* data_;
  WeightLayout layout_;
};

}  // namespace turbomind::ascend
