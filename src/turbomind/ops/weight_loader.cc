// SPDX-License-Identifier: Apache-2.0
#include "turbomind/ops/weight_loader.h"

#include <cstring>

#include "turbomind/core/log.h"
#include "turbomind/ops/dequantize.h"

namespace turbomind {
namespace {

// Formats to try, nearest first.
std::vector<WeightFormat> candidates(const tm_weight_desc& desc) {
  if (desc.compute == TM_COMPUTE_FLOAT32) return {desc.format, TM_WEIGHT_F32};
  switch (desc.format) {
    case TM_WEIGHT_F16:
      return {TM_WEIGHT_F16, TM_WEIGHT_F32, TM_WEIGHT_BF16};
    case TM_WEIGHT_F32:
    case TM_WEIGHT_BF16:  // f16 last: it may overflow
      return {desc.format, TM_WEIGHT_F32, TM_WEIGHT_BF16, TM_WEIGHT_F16};
    default:  // 4- to 8-bit codes times a scale: f16 holds more of the product than bf16
      return {desc.format, TM_WEIGHT_F16, TM_WEIGHT_BF16, TM_WEIGHT_F32};
  }
}

tm_weight_desc as_format(tm_weight_desc desc, WeightFormat format) {
  if (format == desc.format) return desc;
  desc.format = format;
  desc.parts = nullptr;
  desc.group_size = 0;
  return desc;
}

void store_row(const float* values, int64_t cols, WeightFormat format, uint8_t* out) {
  if (format == TM_WEIGHT_F32) {
    std::memcpy(out, values, static_cast<size_t>(cols) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < cols; ++i) {
    const uint16_t bits = format == TM_WEIGHT_F16 ? f32_to_f16(values[i]) : f32_to_bf16(values[i]);
    std::memcpy(out + 2 * i, &bits, sizeof bits);
  }
}

// fp8_tensor has one scale in all, fp8_block128 one row of scales per 128 rows.
int64_t scale_row(WeightFormat format, const tm_weight_part& part, int64_t row) {
  if (format == TM_WEIGHT_FP8_TENSOR) return 0;
  return format == TM_WEIGHT_FP8_BLOCK128 ? (row + part.scale_row_phase) / 128 : row;
}

void convert_part(const tm_weight_desc& desc, const tm_weight_part& part, WeightFormat to, std::vector<uint8_t>& out) {
  const int64_t row_bytes = weight_row_bytes(to, desc.cols);
  out.resize(static_cast<size_t>(part.rows * row_bytes));
  std::vector<float> values(static_cast<size_t>(desc.cols));
  const auto* codes = static_cast<const uint8_t*>(part.data);
  const auto* scales = static_cast<const uint8_t*>(part.scales);
  const auto* zeros = static_cast<const uint8_t*>(part.zeros);
  for (int64_t r = 0; r < part.rows; ++r) {
    QuantizedRow row{.format = desc.format,
                     .codes = codes + r * part.row_stride_bytes,
                     .scale_dtype = desc.scale_dtype,
                     .group_size = desc.group_size,
                     .scale_col_phase = part.scale_col_phase,
                     .global_scale = part.global_scale};
    if (scales) row.scales = scales + scale_row(desc.format, part, r) * part.scale_stride_bytes;
    if (zeros) row.zeros = zeros + r * part.zero_stride_bytes;
    dequantize_row(row, desc.cols, values.data());
    store_row(values.data(), desc.cols, to, out.data() + r * row_bytes);
  }
}

}  // namespace

std::shared_ptr<const ConvertedWeight> convert_weight(const tm_weight_desc& desc, WeightFormat to) {
  check(is_float_format(to), ErrorCode::kInvalidArgument, "convert_weight: to: expected f32, f16 or bf16, found ",
        weight_format_name(to));
  check(desc.parts && desc.num_parts > 0, ErrorCode::kInvalidArgument,
        "convert_weight: parts: expected at least one, found ", desc.num_parts);
  auto result = std::make_shared<ConvertedWeight>();
  result->data.resize(static_cast<size_t>(desc.num_parts));
  for (int32_t i = 0; i < desc.num_parts; ++i) {
    const tm_weight_part& part = desc.parts[i];
    check(part.data && part.rows >= 0, ErrorCode::kInvalidArgument, "convert_weight: part ", i,
          ": expected data and rows >= 0");
    std::vector<uint8_t>& data = result->data[static_cast<size_t>(i)];
    convert_part(desc, part, to, data);
    result->parts.push_back(
        {.data = data.data(), .rows = part.rows, .row_stride_bytes = weight_row_bytes(to, desc.cols)});
  }
  result->desc = as_format(desc, to);
  result->desc.parts = result->parts.data();
  return result;
}

WeightLoader::Choice WeightLoader::choose(tm_weight_desc desc) const {
  const char* reason = nullptr;
  tm_weight_info first{};
  for (const tm_compute compute : {desc.compute, TM_COMPUTE_DEFAULT}) {
    desc.compute = compute;
    for (const WeightFormat format : candidates(desc)) {
      const tm_weight_info info = PackedWeight::query(device_, as_format(desc, format));
      if (info.supported) return {format, compute};
      if (!reason) {
        first = info;
        reason = first.reason;
      }
    }
  }
  fail(ErrorCode::kUnsupported, device_.plugin().name(), " backend: weight format ", weight_format_name(desc.format),
       " [", desc.rows, ", ", desc.cols, "]: ", reason, "; nor does it take f32, f16 or bf16");
}

PackedWeight WeightLoader::load(tm_weight_desc desc, std::shared_ptr<const void> keep_alive) {
  const Choice choice = choose(desc);
  log_choice(desc, choice);
  desc.compute = choice.compute;
  if (choice.format == desc.format) return PackedWeight(device_, stream_, desc, std::move(keep_alive));
  const std::shared_ptr<const ConvertedWeight> converted = convert_weight(desc, choice.format);
  return PackedWeight(device_, stream_, converted->desc, converted);
}

void WeightLoader::log_choice(const tm_weight_desc& desc, const Choice& choice) {
  const bool inexact = choice.compute != desc.compute;
  if (choice.format == desc.format && !inexact) return;
  if (!logged_.insert({desc.format, desc.compute}).second) return;
  log(LogLevel::kWarning, device_.plugin().name(), " backend does not compute on ", weight_format_name(desc.format),
      " weights", desc.compute == TM_COMPUTE_FLOAT32 ? " in float32" : "", ": they become ",
      weight_format_name(choice.format), " at load", inexact ? ", computed with its own rounding" : "");
}

}  // namespace turbomind
