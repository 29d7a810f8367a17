// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/weight_quantizer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "turbomind/core/error.h"
#include "turbomind/ops/dequantize.h"

namespace turbomind {
namespace {

constexpr double kMaxCode = 127.0;

struct Int8Weight {
  std::vector<int8_t> codes;
  std::vector<float> scales;
};

float largest_magnitude(const std::vector<float>& values) {
  // A sum of infinities or anything with a nan stays unequal to itself times zero, which a maximum would hide.
  float largest = 0.0F;
  float poison = 0.0F;
  for (const float value : values) {
    largest = std::max(largest, std::fabs(value));
    poison += value * 0.0F;
  }
  return poison == 0.0F ? largest : poison;
}

// In doubles, whose quotient shows a tie (half of the largest is one, and frequent in bfloat16) as what it is.
void quantize_row(const std::vector<float>& values, float largest, int8_t* codes) {
  if (largest == 0.0F) return;
  for (size_t i = 0; i < values.size(); ++i) {
    codes[i] = static_cast<int8_t>(std::nearbyint(double{values[i]} * kMaxCode / largest));
  }
}

}  // namespace

WeightSource quantize_to_int8(const WeightSource& source) {
  auto weight = std::make_shared<Int8Weight>();
  const auto rows = static_cast<size_t>(source.rows);
  const auto cols = static_cast<size_t>(source.cols);
  weight->codes.resize(rows * cols);
  weight->scales.resize(rows);
  const auto row_bytes = static_cast<size_t>(weight_row_bytes(source.format, source.cols));
  std::vector<float> values(cols);
  for (size_t row = 0; row < rows; ++row) {
    const auto* data = static_cast<const uint8_t*>(source.data) + row * row_bytes;
    dequantize_row({.format = source.format, .codes = data}, source.cols, values.data());
    const float largest = largest_magnitude(values);
    check(std::isfinite(largest), ErrorCode::kInvalidArgument, "row ", row, ": expected finite values, found another");
    weight->scales[row] = static_cast<float>(largest / kMaxCode);
    quantize_row(values, largest, weight->codes.data() + row * cols);
  }
  WeightSource result;
  result.name = source.name;
  result.format = TM_WEIGHT_INT8_CHANNEL;
  result.rows = source.rows;
  result.cols = source.cols;
  result.data = weight->codes.data();
  result.bytes = weight->codes.size();
  result.scales = weight->scales.data();
  result.scale_bytes = weight->scales.size() * sizeof(float);
  result.scale_dtype = TM_F32;
  result.owner = std::move(weight);
  return result;
}

}  // namespace turbomind
