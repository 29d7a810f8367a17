// SPDX-License-Identifier: Apache-2.0
//
// Element types and weight formats: sizes, names, parsing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tm_backend.h"

namespace turbomind {

using DType = tm_dtype;
using WeightFormat = tm_weight_format;

// Bytes of one element.
size_t dtype_size(DType dtype);
// "f32", "bf16", "f8_e4m3", ...
const char* dtype_name(DType dtype);
// Takes dtype_name()'s words and the usual long ones ("float32", "bfloat16", "half", ...). Throws kInvalidArgument.
DType parse_dtype(std::string_view name);
inline bool dtype_in(DType dtype, uint64_t mask) { return (mask >> dtype & 1) != 0; }
inline bool is_float(DType dtype) { return dtype == TM_F32 || dtype == TM_F16 || dtype == TM_BF16; }

// Codes of a weight format as stored in a checkpoint: block_elements values of one row take block_bytes bytes.
struct WeightFormatInfo {
  WeightFormat format;
  const char* name;
  int32_t block_elements;
  int32_t block_bytes;
  bool separate_scales;  // scales (and zeros) lie in arrays of their own
};

// Throws kInvalidArgument for a value outside the enumeration.
const WeightFormatInfo& weight_format_info(WeightFormat format);
inline const char* weight_format_name(WeightFormat format) { return weight_format_info(format).name; }
// "f16", "gguf_q4_1", "int4_group", ... Throws kInvalidArgument.
WeightFormat parse_weight_format(std::string_view name);
// Bytes of the codes of one row. Throws kInvalidArgument if cols is not a whole number of blocks.
int64_t weight_row_bytes(WeightFormat format, int64_t cols);

}  // namespace turbomind
