// SPDX-License-Identifier: Apache-2.0
//
// Weights of any format as float32, for backends that do not compute on the format itself.
#pragma once

#include <cstdint>

#include "turbomind/core/dtype.h"

namespace turbomind {

// Widening is exact; narrowing rounds to nearest even.
float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);
float bf16_to_f32(uint16_t bits);
uint16_t f32_to_bf16(float value);
float f8_e4m3_to_f32(uint8_t bits);

// Whether a format holds plain numbers: f32, f16 or bf16.
bool is_float_format(WeightFormat format);

// One row of a weight, as in tm_weight_part.
struct QuantizedRow {
  WeightFormat format;
  const void* codes;
  const void* scales = nullptr;    // this row's first scale; formats with separate scales only
  const uint8_t* zeros = nullptr;  // this row's first zero point; optional
  DType scale_dtype = TM_F32;
  int32_t group_size = 0;
  int32_t scale_col_phase = 0;  // place of the first column inside its group
  float global_scale = 0;       // multiplies every scale; 0 = 1
};

// out: f32 [cols]. Throws kInvalidArgument for a number of columns the format cannot have or missing scales.
void dequantize_row(const QuantizedRow& row, int64_t cols, float* out);

}  // namespace turbomind
