// SPDX-License-Identifier: Apache-2.0
//
// Random weights in every checkpoint format, with their values.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "reference/number.h"

namespace turbomind::reference {

// One matrix as it lies in a checkpoint: [rows, cols].
struct RawWeight {
  tm_weight_format format;
  int64_t rows;
  int64_t cols;
  int32_t group_size = 0;
  tm_dtype scale_dtype = TM_F32;
  int64_t row_bytes = 0;
  int64_t scale_row_bytes = 0;
  int64_t zero_row_bytes = 0;
  std::vector<uint8_t> codes;
  std::vector<uint8_t> scales;  // separate scales only
  std::vector<uint8_t> zeros;
};

// Columns per block of codes that cannot be split, and per scale: rows are whole multiples of the larger.
struct FormatShape {
  int64_t block;  // 1, 2, 32 or 256
  int64_t block_bytes;
  int64_t granularity;
};
FormatShape format_shape(tm_weight_format format);

// random(): uniform 64-bit words. Values have about unit variance divided by sqrt(cols).
RawWeight make_weight(tm_weight_format format, int64_t rows, int64_t cols, const std::function<uint64_t()>& random);

// Value of one element.
double weight_value(const RawWeight& weight, int64_t row, int64_t col);

}  // namespace turbomind::reference
