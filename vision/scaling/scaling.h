// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace turbomind::vision {

// A filter that scales one axis: output i is the sum of weights[i * taps + j] * input[first[i] + j], j < count[i], over
// 2^bits, rounded half up and clamped to 0..255.
struct FixedPointFilter {
  std::span<const int32_t> first;
  std::span<const int32_t> count;    // at most taps each
  std::span<const int16_t> weights;  // [outputs, taps]
  int32_t bits;                      // 1 to 22

  int64_t outputs() const { return static_cast<int64_t>(first.size()); }
  int64_t taps() const { return outputs() ? static_cast<int64_t>(weights.size()) / outputs() : 0; }
};

// Throws kInvalidArgument unless the filter's parts fit each other and an axis of `inputs`.
void check_filter(const FixedPointFilter& filter, int64_t inputs);
// in [rows, columns, 3] to out [outputs, columns, 3].
void scale_rows(const FixedPointFilter& filter, const uint8_t* in, int64_t columns, uint8_t* out);
// in [rows, columns, 3] to out [rows, outputs, 3].
void scale_columns(const FixedPointFilter& filter, const uint8_t* in, int64_t rows, int64_t columns, uint8_t* out);

}  // namespace turbomind::vision
