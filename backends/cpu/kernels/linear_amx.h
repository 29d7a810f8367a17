// SPDX-License-Identifier: Apache-2.0
//
// linear_int8 for many tokens, on the matrix unit of Intel AMX: the same integer dot products of a group, added in the
// same order, so to the bit what linear_int8 gives.
#pragma once

#include "kernels/linear_task.h"

namespace turbomind::cpu {

inline constexpr int64_t kAmxMinTokens = 32;  // below, expanding a panel costs more than its products save
inline constexpr int kAmxPanels = 2;          // expanded at a time

// Scratch of a thread for weights of `cols` columns: codes as bytes, and a scale and a minimum of 16 rows for each
// group of (at the least) 16 k.
constexpr int64_t amx_panel_groups(int64_t cols, int group_k) { return round_up(cols, 256) / group_k; }
constexpr int64_t amx_scratch_floats(int64_t cols) {
  return kAmxPanels * kPanelRows * (round_up(cols, 256) / 4 + 2 * amx_panel_groups(cols, 16));
}

struct LinearAmxKernels {
  int max_tile_tokens;             // 0: no matrix unit
  LinearFn run[kNumPanelFormats];  // nullptr for float formats
};

}  // namespace turbomind::cpu
