// SPDX-License-Identifier: Apache-2.0
#include "turbomind/core/dtype.h"

#include <array>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

struct DTypeInfo {
  DType dtype;
  size_t size;
  const char* name;
  const char* long_name;
};

constexpr std::array<DTypeInfo, 11> kDTypes{{
    {TM_F32, 4, "f32", "float32"},
    {TM_F16, 2, "f16", "float16"},
    {TM_BF16, 2, "bf16", "bfloat16"},
    {TM_I8, 1, "i8", "int8"},
    {TM_U8, 1, "u8", "uint8"},
    {TM_I32, 4, "i32", "int32"},
    {TM_U32, 4, "u32", "uint32"},
    {TM_I64, 8, "i64", "int64"},
    {TM_U64, 8, "u64", "uint64"},
    {TM_F8_E4M3, 1, "f8_e4m3", "float8_e4m3fn"},
    {TM_F8_E5M2, 1, "f8_e5m2", "float8_e5m2"},
}};

constexpr std::array<WeightFormatInfo, 18> kWeightFormats{{
    {TM_WEIGHT_F32, "f32", 1, 4, false},
    {TM_WEIGHT_F16, "f16", 1, 2, false},
    {TM_WEIGHT_BF16, "bf16", 1, 2, false},
    {TM_WEIGHT_GGUF_Q4_0, "gguf_q4_0", 32, 18, false},
    {TM_WEIGHT_GGUF_Q4_1, "gguf_q4_1", 32, 20, false},
    {TM_WEIGHT_GGUF_Q5_0, "gguf_q5_0", 32, 22, false},
    {TM_WEIGHT_GGUF_Q5_1, "gguf_q5_1", 32, 24, false},
    {TM_WEIGHT_GGUF_Q8_0, "gguf_q8_0", 32, 34, false},
    {TM_WEIGHT_GGUF_Q4_K, "gguf_q4_k", 256, 144, false},
    {TM_WEIGHT_GGUF_Q5_K, "gguf_q5_k", 256, 176, false},
    {TM_WEIGHT_GGUF_Q6_K, "gguf_q6_k", 256, 210, false},
    {TM_WEIGHT_INT4_GROUP, "int4_group", 2, 1, true},
    {TM_WEIGHT_INT8_GROUP, "int8_group", 1, 1, true},
    {TM_WEIGHT_INT8_CHANNEL, "int8_channel", 1, 1, true},
    {TM_WEIGHT_FP8_TENSOR, "fp8_tensor", 1, 1, true},
    {TM_WEIGHT_FP8_CHANNEL, "fp8_channel", 1, 1, true},
    {TM_WEIGHT_FP8_BLOCK128, "fp8_block128", 1, 1, true},
    {TM_WEIGHT_MXFP4, "mxfp4", 2, 1, true},
}};

const DTypeInfo& dtype_info(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  check(index < kDTypes.size(), ErrorCode::kInvalidArgument, "dtype: expected a tm_dtype, found value ", index);
  return kDTypes[index];
}

}  // namespace

size_t dtype_size(DType dtype) { return dtype_info(dtype).size; }

const char* dtype_name(DType dtype) { return dtype_info(dtype).name; }

DType parse_dtype(std::string_view name) {
  for (const DTypeInfo& info : kDTypes) {
    if (name == info.name || name == info.long_name) return info.dtype;
  }
  if (name == "half") return TM_F16;
  if (name == "float") return TM_F32;
  fail(ErrorCode::kInvalidArgument, "dtype: expected a name such as float32, float16, bfloat16 or int8, found '", name,
       "'");
}

const WeightFormatInfo& weight_format_info(WeightFormat format) {
  for (const WeightFormatInfo& info : kWeightFormats) {
    if (info.format == format) return info;
  }
  fail(ErrorCode::kInvalidArgument, "weight format: expected a tm_weight_format, found value ",
       static_cast<int>(format));
}

WeightFormat parse_weight_format(std::string_view name) {
  for (const WeightFormatInfo& info : kWeightFormats) {
    if (name == info.name) return info.format;
  }
  fail(ErrorCode::kInvalidArgument, "weight format: expected a name such as f16, gguf_q4_k or int4_group, found '",
       name, "'");
}

int64_t weight_row_bytes(WeightFormat format, int64_t cols) {
  const WeightFormatInfo& info = weight_format_info(format);
  check(cols > 0 && cols % info.block_elements == 0, ErrorCode::kInvalidArgument, "weight format ", info.name,
        ": expected a positive multiple of ", info.block_elements, " columns, found ", cols);
  return cols / info.block_elements * info.block_bytes;
}

}  // namespace turbomind
