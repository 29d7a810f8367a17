// SPDX-License-Identifier: Apache-2.0
//
// Elementwise operations on one row. `out` may be an input.
#pragma once

#include <cstdint>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cpu {

struct ElementwiseKernels {
  void (*activation)(tm_activation_kind, const float* x, int64_t count, float* out);
  // out = activation(gate) * up
  void (*gated_activation)(tm_activation_kind, const float* gate, const float* up, int64_t count, float* out);
  // out = cap * tanh(x / cap)
  void (*softcap)(const float* x, float cap, int64_t count, float* out);
  void (*add)(const float* a, const float* b, int64_t count, float* out);
  // out += factor * x
  void (*add_scaled)(const float* x, float factor, int64_t count, float* out);
  // Between TM_F32, TM_F16 and TM_BF16, indexed by dtype.
  void (*convert[3][3])(const void* in, int64_t count, void* out);
};

}  // namespace turbomind::cpu
