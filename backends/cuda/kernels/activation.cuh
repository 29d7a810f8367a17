// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

// Forms without cancellation: the tanh GELU is x * sigmoid(2 u), the erf GELU x * erfc(-x / sqrt 2) / 2.
__device__ __forceinline__ float activate(tm_activation_kind kind, float x) {
  switch (kind) {
    case TM_ACTIVATION_SILU:
      return x / (1.0f + expf(-x));
    case TM_ACTIVATION_GELU_TANH: {
      const float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
      return x / (1.0f + expf(-2.0f * u));
    }
    case TM_ACTIVATION_GELU_ERF:
      return 0.5f * x * erfcf(-0.7071067811865475f * x);
    case TM_ACTIVATION_QUICK_GELU:
      return x / (1.0f + expf(-1.702f * x));
    case TM_ACTIVATION_RELU:
      return x < 0.0f ? 0.0f : x;
    default:
      return x;
  }
}

}  // namespace turbomind::cuda
