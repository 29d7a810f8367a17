// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace turbomind::cuda {

// Copies of 4-byte words from pinned host memory to device memory.
struct SpreadPart {
  const int32_t* from;
  int32_t* to;
  int64_t rows;
  int64_t cols;  // words; rows are `cols` apart in `from`, `to_stride` in `to`
  int64_t to_stride;
};

inline constexpr int kMaxSpreadParts = 13;

struct Spread {
  SpreadPart parts[kMaxSpreadParts];
  int num_parts = 0;
};

void launch_spread(cudaStream_t stream, const Spread& spread);

}  // namespace turbomind::cuda
