// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cpu {

struct ElementwiseKernels {
  // out may alias an input. n elements each.
  void (*activation)(tm_activation_kind kind, const float* x, int64_t n, float* out);
  void (*gated_activation)(tm_activation_kind kind, const float* gate, const float* up, int64_t n, float* out);
  void (*add)(const float* a, const float* b, int64_t n, float* out);
  // Between any two of f32, f16, bf16, i8.
  void (*convert)(const void* in, tm_dtype from, int64_t n, void* out, tm_dtype to);
  // Rotates one head in place; cos, sin: [pairs].
  void (*rotate_neox)(float* x, const float* cos, const float* sin, int64_t pairs);
  void (*rotate_interleaved)(float* x, const float* cos, const float* sin, int64_t pairs);
};

}  // namespace turbomind::cpu
