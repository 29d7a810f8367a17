// SPDX-License-Identifier: Apache-2.0
//
// Rotates pairs of one head in place: (a, b) -> (a cos - b sin, b cos + a sin).
#pragma once

#include <cstdint>

namespace turbomind::cpu {

// cos, sin: [pairs]
using RotateFn = void (*)(const float* cos, const float* sin, int64_t pairs, float* head);

struct RopeKernels {
  RotateFn neox;         // pairs (i, i + pairs)
  RotateFn interleaved;  // pairs (2i, 2i + 1)
};

}  // namespace turbomind::cpu
