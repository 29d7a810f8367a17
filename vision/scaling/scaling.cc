// SPDX-License-Identifier: Apache-2.0
#include "vision/scaling/scaling.h"

#include <algorithm>
#include <array>

#include "turbomind/core/error.h"

namespace turbomind::vision {
namespace {

constexpr int64_t kChannels = 3;
constexpr int64_t kStrip = 1024;  // samples of a row whose sums stay in the first-level cache

uint8_t rounded(int32_t sum, int32_t bits) { return static_cast<uint8_t>(std::clamp(sum >> bits, 0, 255)); }

}  // namespace

void check_filter(const FixedPointFilter& filter, int64_t inputs) {
  const auto outputs = filter.first.size();
  bool fits = outputs > 0 && filter.count.size() == outputs && filter.weights.size() % outputs == 0;
  fits = fits && filter.bits >= 1 && filter.bits <= 22;
  for (size_t i = 0; fits && i < outputs; ++i) {
    const int64_t first = filter.first[i];
    const int64_t count = filter.count[i];
    fits = first >= 0 && count >= 0 && count <= filter.taps() && first + count <= inputs;
  }
  if (!fits) throw Error(ErrorCode::kInvalidArgument, "filter: expected one whose parts fit the axis that it scales");
}

void scale_rows(const FixedPointFilter& filter, const uint8_t* in, int64_t columns, uint8_t* out) {
  const int64_t width = columns * kChannels;
  std::array<int32_t, kStrip> sums;
  for (int64_t i = 0; i < filter.outputs(); ++i) {
    const auto at = static_cast<size_t>(i);
    const int16_t* weights = filter.weights.data() + i * filter.taps();
    for (int64_t begin = 0; begin < width; begin += kStrip) {
      const int64_t length = std::min(kStrip, width - begin);
      std::fill_n(sums.begin(), length, int32_t{1} << (filter.bits - 1));
      for (int32_t j = 0; j < filter.count[at]; ++j) {
        const uint8_t* row = in + (filter.first[at] + j) * width + begin;
        const int32_t weight = weights[j];
        for (int64_t x = 0; x < length; ++x) sums[static_cast<size_t>(x)] += weight * row[x];
      }
      uint8_t* to = out + i * width + begin;
      for (int64_t x = 0; x < length; ++x) to[x] = rounded(sums[static_cast<size_t>(x)], filter.bits);
    }
  }
}

void scale_columns(const FixedPointFilter& filter, const uint8_t* in, int64_t rows, int64_t columns, uint8_t* out) {
  const int64_t outputs = filter.outputs();
  for (int64_t y = 0; y < rows; ++y) {
    const uint8_t* row = in + y * columns * kChannels;
    uint8_t* to = out + y * outputs * kChannels;
    for (int64_t i = 0; i < outputs; ++i, to += kChannels) {
      const auto at = static_cast<size_t>(i);
      const int16_t* weights = filter.weights.data() + i * filter.taps();
      const uint8_t* pixel = row + filter.first[at] * kChannels;
      std::array<int32_t, kChannels> sums;
      sums.fill(int32_t{1} << (filter.bits - 1));
      for (int32_t j = 0; j < filter.count[at]; ++j, pixel += kChannels) {
        for (size_t c = 0; c < kChannels; ++c) sums[c] += weights[j] * pixel[c];
      }
      for (size_t c = 0; c < kChannels; ++c) to[c] = rounded(sums[c], filter.bits);
    }
  }
}

}  // namespace turbomind::vision
