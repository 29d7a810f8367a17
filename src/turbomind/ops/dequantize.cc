// SPDX-License-Identifier: Apache-2.0
//
// Layouts: GGUF blocks as published in the GGUF/ggml format description (little endian, f16 scales); fp8 and the
// microscaling formats as in the OCP 8-bit Floating Point and Microscaling Formats specifications, version 1.0.
#include "turbomind/ops/dequantize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

template <class T>
T read(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

float read_f16(const uint8_t* bytes) { return f16_to_f32(read<uint16_t>(bytes)); }

// Blocks of 32: d [, m] [, high bits], then the codes. Nibble i holds element i low, element i + 16 high.

template <bool kHasMin>
void dequantize_q4(const uint8_t* block, float* out) {
  const float d = read_f16(block);
  const float m = kHasMin ? read_f16(block + 2) : -8.0f * d;
  const uint8_t* codes = block + (kHasMin ? 4 : 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(codes[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(codes[i] >> 4) + m;
  }
}

template <bool kHasMin>
void dequantize_q5(const uint8_t* block, float* out) {
  const float d = read_f16(block);
  const float m = kHasMin ? read_f16(block + 2) : -16.0f * d;
  const uint8_t* rest = block + (kHasMin ? 4 : 2);
  const auto high = read<uint32_t>(rest);
  const uint8_t* codes = rest + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((codes[i] & 15) | (high >> i & 1) << 4) + m;
    out[i + 16] = d * static_cast<float>(codes[i] >> 4 | (high >> (i + 16) & 1) << 4) + m;
  }
}

void dequantize_q8_0(const uint8_t* block, float* out) {
  const float d = read_f16(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

// Scale and minimum of sub-block j of 8, six bits each, packed into 12 bytes.
struct ScaleMin {
  float scale;
  float min;
};

ScaleMin scale_min(const uint8_t* packed, int j) {
  if (j < 4) return {static_cast<float>(packed[j] & 63), static_cast<float>(packed[j + 4] & 63)};
  return {static_cast<float>((packed[j + 4] & 15) | packed[j - 4] >> 6 << 4),
          static_cast<float>(packed[j + 4] >> 4 | packed[j] >> 6 << 4)};
}

// 256 values in 8 sub-blocks of 32; each 32 bytes of codes hold two sub-blocks, low nibbles first. high: one byte per
// place in a sub-block, bit j for sub-block j (5-bit codes), or nullptr.
void dequantize_k_blocks(const uint8_t* block, const uint8_t* high, const uint8_t* codes, float* out) {
  const float d = read_f16(block);
  const float dmin = read_f16(block + 2);
  for (int j = 0; j < 8; ++j) {
    const ScaleMin sub = scale_min(block + 4, j);
    const uint8_t* bytes = codes + j / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int low = j % 2 ? bytes[i] >> 4 : bytes[i] & 15;
      const int code = low + (high ? (high[i] >> j & 1) * 16 : 0);
      out[j * 32 + i] = d * sub.scale * static_cast<float>(code) - dmin * sub.min;
    }
  }
}

void dequantize_q4_k(const uint8_t* block, float* out) { dequantize_k_blocks(block, nullptr, block + 16, out); }
void dequantize_q5_k(const uint8_t* block, float* out) { dequantize_k_blocks(block, block + 16, block + 48, out); }

// 256 values in two halves: 4-bit lows [128], 2-bit highs [64], sixteen int8 scales, then d.
void dequantize_q6_k(const uint8_t* block, float* out) {
  const float d = read_f16(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int quarter = i % 128 / 32;
    const int place = i % 32;
    const uint8_t low_byte = block[half * 64 + quarter % 2 * 32 + place];
    const int low = quarter / 2 ? low_byte >> 4 : low_byte & 15;
    const int high = block[128 + half * 32 + place] >> (2 * quarter) & 3;
    const auto scale = static_cast<int8_t>(block[192 + i / 16]);
    out[i] = d * static_cast<float>(scale) * static_cast<float>((low | high << 4) - 32);
  }
}

template <class Decode>
void for_blocks(const QuantizedRow& row, int64_t cols, float* out, Decode decode) {
  const WeightFormatInfo& info = weight_format_info(row.format);
  const auto* block = static_cast<const uint8_t*>(row.codes);
  for (int64_t i = 0; i < cols; i += info.block_elements, block += info.block_bytes) decode(block, out + i);
}

float e2m1_to_f32(int code) {
  static constexpr std::array<float, 8> kMagnitude{0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  return code & 8 ? -kMagnitude[code & 7] : kMagnitude[code & 7];
}

float scale_at(const QuantizedRow& row, int64_t index) {
  const auto* bytes =
      static_cast<const uint8_t*>(row.scales) + index * static_cast<int64_t>(dtype_size(row.scale_dtype));
  switch (row.scale_dtype) {
    case TM_F32:
      return read<float>(bytes);
    case TM_F16:
      return read_f16(bytes);
    case TM_BF16:
      return bf16_to_f32(read<uint16_t>(bytes));
    case TM_U8:  // e8m0: a power of two, 255 is NaN
      return *bytes == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, *bytes - 127);
    default:
      fail(ErrorCode::kInvalidArgument, "scale_dtype: expected f32, f16, bf16 or u8 (e8m0), found ",
           dtype_name(row.scale_dtype));
  }
}

// group: columns that share a scale; code(i): the unscaled value of column i.
template <class Code>
void for_groups(const QuantizedRow& row, int64_t cols, int64_t group, float* out, Code code) {
  check(row.scales != nullptr, ErrorCode::kInvalidArgument, "scales: expected an array for ",
        weight_format_name(row.format), ", found NULL");
  check(group > 0, ErrorCode::kInvalidArgument, "group_size: expected a positive count, found ", group);
  const float global = row.global_scale == 0 ? 1.0f : row.global_scale;
  int64_t end = 0;
  for (int64_t begin = 0, index = 0; begin < cols; begin = end, ++index) {
    end = std::min((index + 1) * group - row.scale_col_phase, cols);
    const float scale = scale_at(row, index) * global;
    for (int64_t i = begin; i < end; ++i) out[i] = code(i) * scale;
  }
}

void dequantize_groups(const QuantizedRow& row, int64_t cols, float* out) {
  const auto* codes = static_cast<const uint8_t*>(row.codes);
  const auto nibble = [&](int64_t i) { return codes[i / 2] >> (i % 2 * 4) & 15; };
  const auto zero = [&](int64_t i) {
    return row.zeros ? int{row.zeros[(i + row.scale_col_phase) / row.group_size]} : 0;
  };
  const auto fp8 = [&](int64_t i) { return f8_e4m3_to_f32(codes[i]); };
  // One scale for the whole row.
  QuantizedRow whole = row;
  whole.scale_col_phase = 0;
  switch (row.format) {
    case TM_WEIGHT_INT4_GROUP:
      return for_groups(row, cols, row.group_size, out, [&](int64_t i) { return float(nibble(i) - zero(i)); });
    case TM_WEIGHT_INT8_GROUP:
      return for_groups(row, cols, row.group_size, out, [&](int64_t i) { return float(codes[i] - zero(i)); });
    case TM_WEIGHT_INT8_CHANNEL:
      return for_groups(whole, cols, cols, out, [&](int64_t i) { return float(static_cast<int8_t>(codes[i])); });
    case TM_WEIGHT_FP8_TENSOR:
    case TM_WEIGHT_FP8_CHANNEL:
      return for_groups(whole, cols, cols, out, fp8);
    case TM_WEIGHT_FP8_BLOCK128:
      return for_groups(row, cols, 128, out, fp8);
    default:
      return for_groups(row, cols, 32, out, [&](int64_t i) { return e2m1_to_f32(nibble(i)); });
  }
}

}  // namespace

float f16_to_f32(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = bits >> 10 & 31;
  const uint32_t mantissa = bits & 1023;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | mantissa << 13);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return sign | 0x7E00;   // NaN
  if (magnitude >= 0x477FF000) return sign | 0x7C00;  // rounds to 65536 or more
  if (magnitude < 0x38800000) {                       // below 2^-14: a multiple of 2^-24, rounded by the adder
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3F000000);
  }
  const uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1) - 0x38000000;
  return sign | static_cast<uint16_t>(rounded >> 13);
}

float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // keep it a NaN
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float f8_e4m3_to_f32(uint8_t bits) {
  const int exponent = bits >> 3 & 15;
  const int mantissa = bits & 7;
  float magnitude;
  if (exponent == 15 && mantissa == 7) {
    magnitude = std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -9);
  } else {
    magnitude = std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  }
  return bits & 0x80 ? -magnitude : magnitude;
}

bool is_float_format(WeightFormat format) {
  return format == TM_WEIGHT_F32 || format == TM_WEIGHT_F16 || format == TM_WEIGHT_BF16;
}

void dequantize_row(const QuantizedRow& row, int64_t cols, float* out) {
  weight_row_bytes(row.format, cols);  // checks cols
  const auto* codes = static_cast<const uint8_t*>(row.codes);
  switch (row.format) {
    case TM_WEIGHT_F32:
      std::memcpy(out, codes, static_cast<size_t>(cols) * sizeof(float));
      return;
    case TM_WEIGHT_F16:
      for (int64_t i = 0; i < cols; ++i) out[i] = read_f16(codes + 2 * i);
      return;
    case TM_WEIGHT_BF16:
      for (int64_t i = 0; i < cols; ++i) out[i] = bf16_to_f32(read<uint16_t>(codes + 2 * i));
      return;
    case TM_WEIGHT_GGUF_Q4_0:
      return for_blocks(row, cols, out, dequantize_q4<false>);
    case TM_WEIGHT_GGUF_Q4_1:
      return for_blocks(row, cols, out, dequantize_q4<true>);
    case TM_WEIGHT_GGUF_Q5_0:
      return for_blocks(row, cols, out, dequantize_q5<false>);
    case TM_WEIGHT_GGUF_Q5_1:
      return for_blocks(row, cols, out, dequantize_q5<true>);
    case TM_WEIGHT_GGUF_Q8_0:
      return for_blocks(row, cols, out, dequantize_q8_0);
    case TM_WEIGHT_GGUF_Q4_K:
      return for_blocks(row, cols, out, dequantize_q4_k);
    case TM_WEIGHT_GGUF_Q5_K:
      return for_blocks(row, cols, out, dequantize_q5_k);
    case TM_WEIGHT_GGUF_Q6_K:
      return for_blocks(row, cols, out, dequantize_q6_k);
    default:
      return dequantize_groups(row, cols, out);
  }
}

}  // namespace turbomind
