// SPDX-License-Identifier: Apache-2.0
#include "kernels/logits.h"

#include "kernels/simd_math.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr int64_t kChunk = 1024;  // values summed in float32 before they join a double

TM_INLINE float largest(const float* x, int64_t n) {
  Vec best = set(-kInfinity);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec v = load(x + i);
    best = select(less(best, v), v, best);
  }
  float result = max_lane(best);
  for (; i < n; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

int64_t argmax(const float* x, int64_t n) {
  const float best = largest(x, n);
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] == best) return i;
  }
  return 0;
}

float exponentials(const float* x, float max, float scale, int64_t n, float* out) {
  const Vec shift = set(max);
  const Vec factor = set(scale);
  Vec total = zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec e = exp((load(x + i) - shift) * factor);
    store(out + i, e);
    total = total + e;
  }
  float result = sum(total);
  if (i < n) {
    const int count = static_cast<int>(n - i);
    store(out + i, exp((load(x + i, count) - shift) * factor), count);
    for (; i < n; ++i) result += out[i];
  }
  return result;
}

double exponential_sum(const float* x, float max, int64_t n) {
  double total = 0.0;
  const Vec shift = set(max);
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t end = n - begin < kChunk ? n : begin + kChunk;
    Vec partial = zero();
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) partial = partial + exp(load(x + i) - shift);
    total += static_cast<double>(sum(partial));
    if (i < end) {
      const int count = static_cast<int>(end - i);
      float lanes[kLanes];
      store(lanes, exp(load(x + i, count) - shift));
      for (int lane = 0; lane < count; ++lane) total += static_cast<double>(lanes[lane]);
    }
  }
  return total;
}

int64_t count_above(const float* x, float bound, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += x[i] > bound;
  return count;
}

}  // namespace

void fill(LogitsKernels& kernels) {
  kernels.argmax = argmax;
  kernels.exponentials = exponentials;
  kernels.exponential_sum = exponential_sum;
  kernels.count_above = count_above;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
