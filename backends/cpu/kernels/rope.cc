// SPDX-License-Identifier: Apache-2.0
#include "kernels/rope.h"

#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

void rotate_neox(const float* cos, const float* sin, int64_t pairs, float* head) {
  float* second = head + pairs;
  int64_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    const Vec a = load(head + i), b = load(second + i), c = load(cos + i), s = load(sin + i);
    store(head + i, a * c - b * s);
    store(second + i, b * c + a * s);
  }
  for (; i < pairs; ++i) {
    const float a = head[i], b = second[i];
    head[i] = a * cos[i] - b * sin[i];
    second[i] = b * cos[i] + a * sin[i];
  }
}

void rotate_interleaved(const float* cos, const float* sin, int64_t pairs, float* head) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = head[2 * i], b = head[2 * i + 1];
    head[2 * i] = a * cos[i] - b * sin[i];
    head[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

}  // namespace

void fill(RopeKernels& kernels) {
  kernels.neox = rotate_neox;
  kernels.interleaved = rotate_interleaved;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
