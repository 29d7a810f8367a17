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

bool is_finite(const Group& group) {
  Vec defect = group.x[0] - group.x[0];  // 0, or NaN
  for (int i = 1; i < kGroupVecs; ++i) defect = defect + (group.x[i] - group.x[i]);
  return all(equal(defect, defect));
}

TM_INLINE float largest_magnitude(const Group& group) {
  Vec largest = abs(group.x[0]);
#pragma GCC unroll 8
  for (int i = 1; i < kGroupVecs; ++i) largest = max(largest, abs(group.x[i]));
  return max_lane(largest);
}

// Where a tile of `count` tokens takes the words of one of them.
struct TileToken {
  int32_t* words;  // of the tile's current group
  int index;
  int count;
};

// magnitude: of the group's largest element, or NaN.
TM_INLINE void quantize_group(const Group& group, float magnitude, const TileToken& token) {
  constexpr float kSmallest = 1e-30f;  // below, the reciprocal would overflow: such a group counts as zeros
  const float scale = magnitude <= kSmallest ? 0.0f : magnitude * (1.0f / 127.0f);
  const Vec inverse = set(magnitude > kSmallest ? 127.0f / magnitude : 0.0f);

  Vec scaled[kGroupVecs];
#pragma GCC unroll 8
  for (int i = 0; i < kGroupVecs; ++i) scaled[i] = group.x[i] * inverse;
  const Bytes codes = round_to_bytes(scaled);
  const HalfSums sums = sum_halves(codes);

  store_bytes(token.words + token.index * kCodeWords, codes);
  const int32_t sum = sums.first + sums.second;
  int32_t* out = token.words + token.index;
  out[kScaleWord * token.count] = std::bit_cast<int32_t>(scale);
  out[kScaledSumWord * token.count] = std::bit_cast<int32_t>(scale * static_cast<float>(sum));
  out[kNegativeSumWord * token.count] = -sum;
  out[kNegativeHalfSumWord * token.count] = -sums.first;
  out[(kNegativeHalfSumWord + 1) * token.count] = -sums.second;
}

// Root mean square of a row, summed in a fixed order.
float row_rms(const float* x, int64_t cols) {
  Vec squares[2] = {zero(), zero()};
  int64_t k = 0;
  for (; k + 2 * kLanes <= cols; k += 2 * kLanes) {
    const Vec first = load(x + k);
    const Vec second = load(x + k + kLanes);
    squares[0] = fma(first, first, squares[0]);
    squares[1] = fma(second, second, squares[1]);
  }
  for (; k < cols; k += kLanes) {
    const Vec rest = load(x + k, static_cast<int>(cols - k < kLanes ? cols - k : kLanes));
    squares[0] = fma(rest, rest, squares[0]);
  }
  return __builtin_sqrtf(sum(squares[0] + squares[1]) / static_cast<float>(cols));
}

// Outliers of one token while its row is read.
struct OutlierList {
  int32_t* words;  // [count], then [k, value] pairs
  int64_t capacity;

  TM_INLINE void add(int64_t k, float value) {
    const int32_t index = words[0]++;
    words[1 + 2 * index] = static_cast<int32_t>(k);
    words[2 + 2 * index] = std::bit_cast<int32_t>(value);
  }
  TM_INLINE bool is_full() const { return words[0] == capacity; }
};

// Moves the group's elements beyond `limit` to the list and leaves 0; x: the group's elements, the first at k.
void take_outliers(Group& group, float limit, const float* x, int64_t k, OutlierList& list) {
  for (int i = 0; i < kGroupVecs; ++i) {
    const Mask beyond = less(set(limit), abs(group.x[i]));
    for (uint32_t bits = mask_bits(beyond); bits != 0; bits &= bits - 1) {
      if (list.is_full()) return;  // only if rounding of the root mean square hides that this cannot be
      const int lane = i * kLanes + __builtin_ctz(bits);
      list.add(k + lane, x[lane]);
    }
    group.x[i] = select(beyond, zero(), group.x[i]);
  }
}

void quantize_row(const float* row, int64_t cols, TileToken token, OutlierList outliers) {
  // Not finite if an element is not, or is huge: then there are no outliers, and every group is looked at.
  const float limit = kOutlierRms * row_rms(row, cols);
  const bool finite = limit < __builtin_inff();
  outliers.words[0] = 0;
  for (int64_t k = 0; k < cols; k += kActivationGroup, token.words += kGroupWords * token.count) {
    Group group = load_group(row + k, cols - k);
    float magnitude = finite || is_finite(group) ? largest_magnitude(group) : __builtin_nanf("");
    if (magnitude > limit) {
      take_outliers(group, limit, row + k, k, outliers);
      magnitude = largest_magnitude(group);
    }
    quantize_group(group, magnitude, token);
  }
}

void quantize_tile(const float* x, int64_t stride, int tokens, int64_t cols, int32_t* words, int32_t* outliers) {
  for (int token = 0; token < tokens; ++token) {
    quantize_row(x + token * stride, cols, {words, token, tokens},
                 {outliers + token * outlier_words_per_token(cols), max_outliers(cols)});
  }
  const int64_t groups = (cols + kActivationGroup - 1) / kActivationGroup;
  const int64_t padded = activation_words_per_token(cols) * tokens;
  for (int64_t i = groups * kGroupWords * tokens; i < padded; ++i) words[i] = 0;
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
