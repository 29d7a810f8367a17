// SPDX-License-Identifier: Apache-2.0
#include "ops/gemm.h"

#include <algorithm>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define FAKECANN_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define FAKECANN_CLONES
#endif

namespace fakecann {
namespace {

constexpr int kLanes = 8;
constexpr int64_t kRows = 64;  // rows of w at a time: 64 x 2048 floats stay in the second cache

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4)));

float sum_of(const Lanes& lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

}  // namespace

FAKECANN_CLONES
void dot4(const float* x, const float* w0, const float* w1, const float* w2, const float* w3, int64_t k, float* out) {
  Lanes a0{}, a1{}, a2{}, a3{};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    const Lanes lane = *reinterpret_cast<const Lanes*>(x + i);
    a0 += lane * *reinterpret_cast<const Lanes*>(w0 + i);
    a1 += lane * *reinterpret_cast<const Lanes*>(w1 + i);
    a2 += lane * *reinterpret_cast<const Lanes*>(w2 + i);
    a3 += lane * *reinterpret_cast<const Lanes*>(w3 + i);
  }
  out[0] = sum_of(a0), out[1] = sum_of(a1), out[2] = sum_of(a2), out[3] = sum_of(a3);
  for (; i < k; ++i) {
    out[0] += x[i] * w0[i];
    out[1] += x[i] * w1[i];
    out[2] += x[i] * w2[i];
    out[3] += x[i] * w3[i];
  }
}

FAKECANN_CLONES
float dot(const float* x, const float* w, int64_t k) {
  Lanes lanes{};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    lanes += *reinterpret_cast<const Lanes*>(x + i) * *reinterpret_cast<const Lanes*>(w + i);
  }
  float total = sum_of(lanes);
  for (; i < k; ++i) total += x[i] * w[i];
  return total;
}

FAKECANN_CLONES
void accumulate(float factor, const float* row, int64_t k, float* sum) {
  for (int64_t i = 0; i < k; ++i) sum[i] += factor * row[i];
}

void gemm(const float* x, int64_t m, int64_t n, int64_t k, const std::function<void(int64_t, int64_t, float*)>& fill,
          float* out) {
  std::vector<float> rows(static_cast<size_t>(kRows * std::max<int64_t>(k, 1)));
  for (int64_t first = 0; first < n; first += kRows) {
    const int64_t count = std::min(kRows, n - first);
    fill(first, count, rows.data());
    for (int64_t i = 0; i < m; ++i) {
      int64_t j = 0;
      for (; j + 4 <= count; j += 4) {
        const float* w = rows.data() + j * k;
        dot4(x + i * k, w, w + k, w + 2 * k, w + 3 * k, k, out + i * n + first + j);
      }
      for (; j < count; ++j) out[i * n + first + j] = dot(x + i * k, rows.data() + j * k, k);
    }
  }
}

}  // namespace fakecann
