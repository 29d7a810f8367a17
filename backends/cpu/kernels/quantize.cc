// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantize.h"

#include "kernels/panels.h"
#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr int kGroupVecs = kActivationGroup / kLanes;
constexpr int kWords = kActivationGroup / kQuad;

struct Group {
  Vec x[kGroupVecs];
};

// Elements from `left` on read as 0.
TM_INLINE Group load_group(const float* x, int64_t left) {
  Group group;
#pragma GCC unroll 4
  for (int i = 0; i < kGroupVecs; ++i) {
    const int64_t count = left - i * kLanes;
    group.x[i] =
        count >= kLanes ? load(x + i * kLanes) : (count > 0 ? load(x + i * kLanes, static_cast<int>(count)) : zero());
  }
  return group;
}

// NaN if an element is not finite.
TM_INLINE float largest_magnitude(const Group& group) {
  Vec largest = abs(group.x[0]);
  Vec defect = group.x[0] - group.x[0];  // 0, or NaN
#pragma GCC unroll 4
  for (int i = 1; i < kGroupVecs; ++i) {
    largest = max(largest, abs(group.x[i]));
    defect = defect + (group.x[i] - group.x[i]);
  }
  return all(equal(defect, defect)) ? max_lane(largest) : __builtin_nanf("");
}

// Words of one token, kGroupWords of them at distance `tokens`.
TM_INLINE void quantize_group(const Group& group, int tokens, int32_t* out) {
  const float magnitude = largest_magnitude(group);
  const bool usable = magnitude > 1e-30f;  // false for NaN too; below, the reciprocal would overflow
  const float scale = magnitude <= 1e-30f ? 0.0f : magnitude * (1.0f / 127.0f);
  const Vec inverse = set(usable ? 127.0f / magnitude : 0.0f);

  alignas(64) int8_t codes[kActivationGroup];
  Vec half_sums[2] = {zero(), zero()};
#pragma GCC unroll 4
  for (int i = 0; i < kGroupVecs; ++i) {
    const Vec code = usable ? round(group.x[i] * inverse) : zero();
    store(codes + i * kLanes, code);
    half_sums[2 * i / kGroupVecs] = half_sums[2 * i / kGroupVecs] + code;
  }
  const float first = sum(half_sums[0]);
  const float second = sum(half_sums[1]);

  int32_t words[kGroupWords];
  __builtin_memcpy(words, codes, sizeof codes);
  words[kScaleWord] = std::bit_cast<int32_t>(scale);
  words[kScaledSumWord] = std::bit_cast<int32_t>(scale * (first + second));
  words[kNegativeSumWord] = -static_cast<int32_t>(first + second);
  words[kNegativeHalfSumWord] = -static_cast<int32_t>(first);
  words[kNegativeHalfSumWord + 1] = -static_cast<int32_t>(second);
  for (int i = 0; i < kGroupWords; ++i) out[i * tokens] = words[i];
}

void quantize_tile(const float* x, int64_t stride, int tokens, int64_t cols, int32_t* out) {
  const int64_t groups = activation_words_per_token(cols) / kGroupWords;
  for (int token = 0; token < tokens; ++token) {
    const float* row = x + token * stride;
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t k = group * kActivationGroup;
      quantize_group(load_group(row + k, cols - k), tokens, out + group * kGroupWords * tokens + token);
    }
  }
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
