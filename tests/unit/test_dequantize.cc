// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <vector>

#include "dequantize_vectors.h"
#include "support/test.h"
#include "turbomind/core/error.h"
#include "turbomind/ops/dequantize.h"

namespace turbomind {
namespace {

template <size_t kCount>
void expect_values(WeightFormat format, const uint8_t* block, const float (&expected)[kCount]) {
  std::vector<float> found(kCount);
  dequantize_row({.format = format, .codes = block}, kCount, found.data());
  // Both sides round d * scale * code - min at most twice, in another order.
  for (size_t i = 0; i < kCount; ++i) EXPECT_NEAR(found[i], expected[i], 2e-7 * std::abs(expected[i]) + 1e-6);
}

TEST(gguf_blocks_decode_as_the_gguf_package_does) {
  using namespace dequantize_vectors;
  expect_values(TM_WEIGHT_GGUF_Q4_0, kQ40Block, kQ40Values);
  expect_values(TM_WEIGHT_GGUF_Q4_1, kQ41Block, kQ41Values);
  expect_values(TM_WEIGHT_GGUF_Q5_0, kQ50Block, kQ50Values);
  expect_values(TM_WEIGHT_GGUF_Q5_1, kQ51Block, kQ51Values);
  expect_values(TM_WEIGHT_GGUF_Q8_0, kQ80Block, kQ80Values);
  expect_values(TM_WEIGHT_GGUF_Q4_K, kQ4KBlock, kQ4KValues);
  expect_values(TM_WEIGHT_GGUF_Q5_K, kQ5KBlock, kQ5KValues);
  expect_values(TM_WEIGHT_GGUF_Q6_K, kQ6KBlock, kQ6KValues);
}

// Value of an IEEE-like float from its fields, in double arithmetic.
double decode(unsigned bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int mantissa = static_cast<int>(bits & ((1u << mantissa_bits) - 1));
  const int exponent = static_cast<int>(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
  const double sign = bits >> (mantissa_bits + exponent_bits) & 1 ? -1 : 1;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

TEST(every_half_decodes_and_survives_a_round_trip) {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    if ((bits >> 10 & 31) == 31) continue;
    const float value = f16_to_f32(static_cast<uint16_t>(bits));
    EXPECT_EQ(static_cast<double>(value), decode(bits, 5, 10));
    EXPECT_EQ(f32_to_f16(value), bits);
  }
  EXPECT(std::isinf(f16_to_f32(0x7C00)) && std::isnan(f16_to_f32(0x7C01)));
}

TEST(narrowing_rounds_to_nearest_even) {
  EXPECT_EQ(f32_to_f16(1.0f + 1.0f / 2048), 0x3C00);  // a tie goes to the even neighbour below
  EXPECT_EQ(f32_to_f16(1.0f + 3.0f / 2048), 0x3C02);  // and above
  EXPECT_EQ(f32_to_f16(65519.0f), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(f32_to_f16(std::ldexp(1.0f, -25)), 0);  // half the smallest: to even
  EXPECT_EQ(f32_to_f16(std::ldexp(1.5f, -25)), 1);
  EXPECT_EQ(f32_to_bf16(1.0f + 1.0f / 256), 0x3F80);
  EXPECT_EQ(f32_to_bf16(1.0f + 3.0f / 256), 0x3F82);
  EXPECT(std::isnan(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(f32_to_f16(-std::numeric_limits<float>::infinity()), 0xFC00);
}

TEST(fp8_decodes_every_code) {
  for (unsigned bits = 0; bits < 256; ++bits) {
    const float value = f8_e4m3_to_f32(static_cast<uint8_t>(bits));
    if ((bits & 127) == 127) {
      EXPECT(std::isnan(value));
    } else {
      EXPECT_EQ(static_cast<double>(value), decode(bits, 4, 3));
    }
  }
}

TEST(grouped_codes_use_their_groups_scale_and_zero) {
  const uint8_t codes[] = {0x21, 0x43, 0x65, 0x87};  // 1 2 3 4 5 6 7 8
  const float scales[] = {2.0f, 0.5f};
  const uint8_t zeros[] = {1, 8};
  float found[8];
  QuantizedRow row{.format = TM_WEIGHT_INT4_GROUP, .codes = codes, .scales = scales, .zeros = zeros, .group_size = 4};
  dequantize_row(row, 8, found);
  const float expected[] = {0, 2, 4, 6, -1.5f, -1, -0.5f, 0};
  for (int i = 0; i < 8; ++i) EXPECT_EQ(found[i], expected[i]);
  row.scales = nullptr;
  EXPECT_ERROR(dequantize_row(row, 8, found), ErrorCode::kInvalidArgument, "scales: expected an array for int4_group");
}

TEST(mxfp4_scales_are_powers_of_two) {
  uint8_t codes[16] = {};
  codes[0] = 0xF7;  // 6 and -6
  const uint8_t scale = 129;
  float found[32];
  dequantize_row({.format = TM_WEIGHT_MXFP4, .codes = codes, .scales = &scale, .scale_dtype = TM_U8}, 32, found);
  EXPECT_EQ(found[0], 24.0f);
  EXPECT_EQ(found[1], -24.0f);
  EXPECT_EQ(found[2], 0.0f);
}

}  // namespace
}  // namespace turbomind
