// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantize.h"

#include "kernels/rows.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr int kGroupVecs = kActivationGroup / kLanes;

struct Group {
  Vec x[kGroupVecs];
};

// Elements from `left` on read as 0.
TM_INLINE Group load_group(const float* x, int64_t left) {
  Group group;
#pragma GCC unroll 8
  for (int i = 0; i < kGroupVecs; ++i) {
    const int64_t count = left - i * kLanes;
    group.x[i] =
        count >= kLanes ? load(x + i * kLanes) : (count > 0 ? load(x + i * kLanes, static_cast<int>(count)) : zero());
  }
  return group;
}

TM_INLINE bool is_finite(const Group& group) {
  Vec defect = group.x[0] - group.x[0];  // 0, or NaN
#pragma GCC unroll 8
  for (int i = 1; i < kGroupVecs; ++i) defect = defect + (group.x[i] - group.x[i]);
  return all(equal(defect, defect));
}

TM_INLINE float largest_magnitude(const Group& group) {
  Vec largest = abs(group.x[0]);
#pragma GCC unroll 8
  for (int i = 1; i < kGroupVecs; ++i) largest = max(largest, abs(group.x[i]));
  return max_lane(largest);
}

// magnitude: of the group's largest element, or NaN. Writes the words of one token, at distance `tokens`.
TM_INLINE void quantize_group(const Group& group, float magnitude, int tokens, int32_t* out) {
  constexpr float kSmallest = 1e-30f;  // below, the reciprocal would overflow: such a group counts as zeros
  const float scale = magnitude <= kSmallest ? 0.0f : magnitude * (1.0f / 127.0f);
  const Vec inverse = set(magnitude > kSmallest ? 127.0f / magnitude : 0.0f);

  Vec scaled[kGroupVecs];
#pragma GCC unroll 8
  for (int i = 0; i < kGroupVecs; ++i) scaled[i] = group.x[i] * inverse;
  const Bytes codes = round_to_bytes(scaled);
  const HalfSums sums = sum_halves(codes);

  int32_t words[kActivationGroup / kQuad];
  store_bytes(words, codes);
#pragma GCC unroll 8
  for (int i = 0; i < kActivationGroup / kQuad; ++i) out[i * tokens] = words[i];
  const int32_t sum = sums.first + sums.second;
  out[kScaleWord * tokens] = std::bit_cast<int32_t>(scale);
  out[kScaledSumWord * tokens] = std::bit_cast<int32_t>(scale * static_cast<float>(sum));
  out[kNegativeSumWord * tokens] = -sum;
  out[kNegativeHalfSumWord * tokens] = -sums.first;
  out[(kNegativeHalfSumWord + 1) * tokens] = -sums.second;
}

void quantize_tile(const float* x, int64_t stride, int tokens, int64_t cols, int32_t* out) {
  const int64_t words = activation_words_per_token(cols) * tokens;
  const int64_t groups = (cols + kActivationGroup - 1) / kActivationGroup;
  for (int token = 0; token < tokens; ++token) {
    const float* row = x + token * stride;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t k = g * kActivationGroup;
      const Group group = load_group(row + k, cols - k);
      const float magnitude = is_finite(group) ? largest_magnitude(group) : __builtin_nanf("");
      quantize_group(group, magnitude, tokens, out + g * kGroupWords * tokens + token);
    }
  }
  for (int64_t i = groups * kGroupWords * tokens; i < words; ++i) out[i] = 0;
}

void transpose_tile(const float* x, int64_t stride, int tokens, int64_t cols, float* out) {
  for (int64_t k = 0; k < cols; ++k) {
    for (int token = 0; token < tokens; ++token) out[k * tokens + token] = x[token * stride + k];
  }
}

}  // namespace

void fill(QuantizeKernels& kernels) {
  kernels.quantize_tile = quantize_tile;
  kernels.transpose_tile = transpose_tile;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
