// SPDX-License-Identifier: Apache-2.0
//
// Walks token rows of a step with their places in the KV cache.
#pragma once

#include <algorithm>

#include "plan.h"

namespace turbomind::cpu {

// Rows that follow one another in one block of one sequence.
struct BlockRun {
  int64_t row;  // first token row
  int64_t count;
  int64_t block;  // of the pool
  int64_t place;  // of the first row inside the block
};

// Calls fn(BlockRun) for the token rows [begin, end) of the plan.
template <class Fn>
void for_block_runs(const Plan& plan, int64_t block_size, int64_t begin, int64_t end, Fn&& fn) {
  const int32_t* cu = plan.cu_seqlens_q();
  int64_t seq = std::upper_bound(cu, cu + plan.num_seqs() + 1, begin) - cu - 1;
  for (int64_t row = begin; row < end;) {
    while (row >= cu[seq + 1]) ++seq;
    const int64_t position = plan.position(seq, row);
    const int64_t place = position % block_size;
    const int64_t count = std::min({block_size - place, cu[seq + 1] - row, end - row});
    fn(BlockRun{row, count, plan.block_table(seq)[position / block_size], place});
    row += count;
  }
}

}  // namespace turbomind::cpu
