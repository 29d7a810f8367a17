// SPDX-License-Identifier: Apache-2.0
//
// Linear on bfloat16 weights and activations rounded to bfloat16, by the dot products of AVX512_BF16 or on the matrix
// unit of Intel AMX: products are added in float32 in ascending order of k, whatever the number of tokens, so a token's
// result does not depend on the others'. The two differ in how many products are added at a time.
#pragma once

#include "kernels/linear_task.h"

namespace turbomind::cpu {

inline constexpr int kBf16StepK = 32;

// Activations of a tile: [bf16_cols(cols) / kBf16StepK][tokens][kBf16StepK], zero past cols.
constexpr int64_t bf16_cols(int64_t cols) { return round_up(cols, kBf16StepK); }

struct LinearBf16Kernels {
  int max_tile_tokens;
  LinearFn run;  // nullptr: the processor has neither
  // out: as above
  void (*round_tile)(const float* x, int64_t stride, int tokens, int64_t cols, uint16_t* out);
};

}  // namespace turbomind::cpu
