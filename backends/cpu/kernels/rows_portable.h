// SPDX-License-Identifier: Apache-2.0
//
// rows.h in plain C++.
#pragma once

#include <cstring>

#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

inline constexpr bool kSignedBytes = false;

inline constexpr int kInt8MaxTokens = 4;
constexpr int int8_panels_per_tile(int) { return 1; }
inline constexpr int kF32MaxTokens = 4;
inline constexpr int kF32PanelsPerTile = 1;

struct Codes {
  uint8_t v[kVectorBytes];
};
struct Sums {
  int32_t v[kPanelRows];
};
struct Quad {
  int8_t v[kQuad];
};

TM_INLINE Codes load_codes(const uint8_t* p) {
  Codes out;
  std::memcpy(out.v, p, kVectorBytes);
  return out;
}
TM_INLINE Codes mask(Codes a, int byte) {
  for (uint8_t& code : a.v) code = static_cast<uint8_t>(code & byte);
  return a;
}
TM_INLINE Codes merge(Codes low, Codes high, int byte) {
  for (int i = 0; i < kVectorBytes; ++i) low.v[i] = static_cast<uint8_t>(low.v[i] | (high.v[i] & byte));
  return low;
}
template <int n>
TM_INLINE Codes shift_left(Codes a) {
  for (uint8_t& code : a.v) code = static_cast<uint8_t>(code << n);
  return a;
}
template <int n>
TM_INLINE Codes shift_right(Codes a) {
  for (uint8_t& code : a.v) code = static_cast<uint8_t>(code >> n);
  return a;
}

TM_INLINE Quad load_quad(const int32_t* p) {
  Quad out;
  std::memcpy(out.v, p, sizeof out.v);
  return out;
}
TM_INLINE Sums set_sums(int32_t x) {
  Sums out;
  for (int32_t& sum : out.v) sum = x;
  return out;
}
template <int n>
TM_INLINE Sums shift_sums_left(Sums a) {
  for (int32_t& sum : a.v) sum *= 1 << n;
  return a;
}
template <int kBits>
TM_INLINE Sums dot(Sums sums, const Codes& codes, const Quad& quad) {
  for (int row = 0; row < kPanelRows; ++row) {
    for (int j = 0; j < kQuad; ++j) sums.v[row] += codes.v[kQuad * row + j] * quad.v[j];
  }
  return sums;
}
template <int j>
TM_INLINE Sums byte_of_lane(const Codes& codes) {
  Sums out;
  for (int row = 0; row < kPanelRows; ++row) out.v[row] = codes.v[kQuad * row + j];
  return out;
}
TM_INLINE Vec to_vec(const Sums& sums, int part) {
  return make([&](int i) { return static_cast<float>(sums.v[part * kLanes + i]); });
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
