// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <string>
#include <vector>

#include "dequantize_vectors.h"
#include "support/null_backend.h"
#include "support/test.h"
#include "turbomind/core/log.h"
#include "turbomind/ops/dequantize.h"
#include "turbomind/ops/weight_loader.h"

namespace turbomind {
namespace {

// Two rows in two parts, of one block each.
struct Q41Weight {
  tm_weight_part parts[2] = {{.data = dequantize_vectors::kQ41Block, .rows = 1, .row_stride_bytes = 20},
                             {.data = dequantize_vectors::kQ41Block, .rows = 1, .row_stride_bytes = 20}};
  tm_weight_desc desc{.format = TM_WEIGHT_GGUF_Q4_1, .rows = 2, .cols = 32, .parts = parts, .num_parts = 2};
};

TEST(supported_formats_are_packed_as_they_are) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  const Device device(null.plugin(), 0);
  Stream stream(device);
  WeightLoader loader(device, stream);
  const PackedWeight weight = loader.load(Q41Weight().desc);
  EXPECT_EQ(weight.format(), TM_WEIGHT_GGUF_Q4_1);
  EXPECT_EQ(weight.rows(), 2);
  EXPECT_EQ(null.count("weight_pack"), 1);
}

TEST(other_formats_are_converted_and_logged_once) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  const Device device(null.plugin(), 0, {{"weight_formats", "0,2"}});
  Stream stream(device);
  WeightLoader loader(device, stream);
  std::vector<std::string> lines;
  Logger::instance().set_sink([&](LogLevel, std::string_view line) { lines.emplace_back(line); });
  EXPECT_EQ(loader.load(Q41Weight().desc).format(), TM_WEIGHT_BF16);
  EXPECT_EQ(loader.load(Q41Weight().desc).format(), TM_WEIGHT_BF16);
  Logger::instance().set_sink({});
  EXPECT_EQ(lines.size(), 1u);
  EXPECT(lines.at(0).find("gguf_q4_1 weights: they become bf16 at load") != std::string::npos);
  Q41Weight exact;
  exact.desc.compute = TM_COMPUTE_FLOAT32;
  EXPECT_EQ(loader.choose(exact.desc).format, TM_WEIGHT_F32);
}

TEST(a_backend_without_float_formats_is_an_error) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  const Device device(null.plugin(), 0, {{"weight_formats", "14"}});
  Stream stream(device);
  WeightLoader loader(device, stream);
  EXPECT_ERROR(loader.load(Q41Weight().desc), ErrorCode::kUnsupported, "nor does it take f32, f16 or bf16");
}

TEST(conversion_holds_every_parts_values) {
  const auto converted = convert_weight(Q41Weight().desc, TM_WEIGHT_F16);
  EXPECT_EQ(converted->desc.num_parts, 2);
  EXPECT_EQ(converted->desc.parts[1].row_stride_bytes, 64);
  for (int part = 0; part < 2; ++part) {
    uint16_t bits[32];
    std::memcpy(bits, converted->desc.parts[part].data, sizeof bits);
    for (int i = 0; i < 32; ++i) EXPECT_EQ(bits[i], f32_to_f16(dequantize_vectors::kQ41Values[i]));
  }
  EXPECT_ERROR(convert_weight(Q41Weight().desc, TM_WEIGHT_GGUF_Q8_0), ErrorCode::kInvalidArgument, "found gguf_q8_0");
}

}  // namespace
}  // namespace turbomind
