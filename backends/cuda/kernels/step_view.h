// SPDX-License-Identifier: Apache-2.0
//
// The metadata of a step as kernels see it: device memory at addresses that stay the same for the plan's life, so that
// captured launches find the next step's values there.
#pragma once

#include <cstdint>

namespace turbomind::cuda {

struct StepView {
  const int32_t* num_tokens;    // [1]; rows past it are padding
  const int32_t* cu_seqlens_q;  // [num_seqs + 1]
  const int32_t* context_lens;  // [num_seqs]
  const int32_t* block_table;   // [num_seqs, block_table_stride]
  const int32_t* row_seq;       // [max_tokens]: the row's sequence; -1: padding
  const int32_t* row_slot;      // [max_tokens]: block * block_size + place of the row in a pool; -1: padding
  const int32_t* row_end;       // [max_tokens]: past the last position that the row sees; nullptr: past its own
  int64_t block_table_stride;
};

}  // namespace turbomind::cuda
