// SPDX-License-Identifier: Apache-2.0
#include "kernels/logits.h"

#include "kernels/simd_math.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr int64_t kCountBlock = 1 << 20;  // counts of a block stay whole numbers in float32

TM_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// x[i .. n), lanes past the end holding `rest`.
TM_INLINE Vec load_or(const float* x, int64_t i, int64_t n, float rest) {
  if (i + kLanes <= n) return load(x + i);
  const int count = static_cast<int>(n - i);
  float lanes[kLanes];
  store(lanes, set(rest));
  store(lanes, load(x + i, count), count);
  return load(lanes);
}

float block_maxima(const float* x, int64_t n, float* maxima) {
  float result = -kInfinity;
  for (int64_t begin = 0; begin < n; begin += kMaximaBlock) {
    const int64_t end = smaller(begin + kMaximaBlock, n);
    Vec best = set(-kInfinity);
    for (int64_t i = begin; i < end; i += kLanes) best = max(load_or(x, i, end, -kInfinity), best);
    const float largest = max_lane(best);
    maxima[begin / kMaximaBlock] = largest;
    result = largest > result ? largest : result;
  }
  return result;
}

void exponentials(const float* x, float max, float scale, int64_t n, float* out) {
  const Vec shift = set(max);
  const Vec factor = set(scale);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, exp((load(x + i) - shift) * factor));
  if (i < n) {
    const int count = static_cast<int>(n - i);
    store(out + i, exp((load(x + i, count) - shift) * factor), count);
  }
}

double exponential_sum(const float* x, float max, float scale, int64_t n, float* block_sums) {
  const Vec shift = set(max);
  const Vec factor = set(scale);
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = smaller(begin + kSumBlock, n);
    Vec partial = zero();
    for (int64_t i = begin; i < end; i += kLanes) {
      partial = partial + exp((load_or(x, i, end, -kInfinity) - shift) * factor);
    }
    const float block = sum(partial);
    if (block_sums) block_sums[begin / kSumBlock] = block;
    total += static_cast<double>(block);
  }
  return total;
}

int64_t count_above(const float* x, float bound, int64_t n) {
  int64_t total = 0;
  for (int64_t begin = 0; begin < n; begin += kCountBlock) {
    const int64_t end = smaller(begin + kCountBlock, n);
    Vec counts = zero();
    for (int64_t i = begin; i < end; i += kLanes) {
      const Mask above = less(set(bound), load_or(x, i, end, -kInfinity));
      counts = counts + select(above, set(1.0f), zero());
    }
    total += static_cast<int64_t>(sum(counts));
  }
  return total;
}

void forbid(float* x, const uint32_t* allowed, int64_t n) {
  constexpr int64_t kWordBits = 32;
  static_assert(kWordBits % kLanes == 0);
  const Vec forbidden = set(-kInfinity);
  int64_t begin = 0;
  for (; begin + kWordBits <= n; begin += kWordBits) {
    const uint32_t word = allowed[begin / kWordBits];
    if (word == ~uint32_t{0}) continue;
    for (int64_t i = 0; i < kWordBits; i += kLanes) {
      float* lanes = x + begin + i;
      store(lanes, select(lanes_of(word >> i), load(lanes), forbidden));
    }
  }
  for (int64_t i = begin; i < n; ++i) {
    if ((allowed[i / kWordBits] >> i % kWordBits & 1) == 0) x[i] = -kInfinity;
  }
}

}  // namespace

void fill(LogitsKernels& kernels) {
  kernels.block_maxima = block_maxima;
  kernels.exponentials = exponentials;
  kernels.exponential_sum = exponential_sum;
  kernels.count_above = count_above;
  kernels.forbid = forbid;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
