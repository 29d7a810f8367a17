// SPDX-License-Identifier: Apache-2.0
//
// Bias, activation and gating of a finished tile, shared by the linear kernels of an instruction set.
#pragma once

#include "kernels/linear_task.h"
#include "kernels/simd_math.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

struct TileSums {
  const float* data;
  int stride;  // between tokens
};

// sums: [tokens, panels * kPanelRows], of token rows from first_token and output features from `panel` on.
static void store_tile(const LinearTask& task, TileSums sums, int64_t first_token, int tokens, int64_t panel,
                       int panels) {
  const int64_t first = panel * kPanelRows;
  const int64_t last =
      task.panels.rows < (panel + panels) * kPanelRows ? task.panels.rows : (panel + panels) * kPanelRows;
  const int width = static_cast<int>(last - first);
  with_activation(task.activation, [&](auto tag) TM_INLINE_LAMBDA {
    for (int token = 0; token < tokens; ++token) {
      float* out = task.out + (first_token + token) * task.out_stride + first;
      const float* in = sums.data + token * sums.stride;
      for (int i = 0; i < width; i += kLanes) {
        const int count = width - i;
        Vec value = load(in + i);
        if (task.bias) value = value + load(task.bias + first + i, count < kLanes ? count : kLanes);
        value = activate<decltype(tag)::value>(value);
        if (count >= kLanes) {
          store(out + i, task.multiply ? value * load(out + i) : value);
        } else {
          store(out + i, task.multiply ? value * load(out + i, count) : value, count);
        }
      }
    }
  });
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
