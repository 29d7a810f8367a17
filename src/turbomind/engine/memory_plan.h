// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "turbomind/engine/options.h"
#include "turbomind/engine/rank_group.h"
#include "turbomind/engine/stats.h"

namespace turbomind {

// What the KV cache is sized for.
struct KvSizing {
  int32_t block_size;
  int64_t session_len;
  int64_t max_num_seqs;
  int64_t num_blocks;  // fixed by the caller; 0 = by memory
  double fraction;     // of what is free; 0 = auto
};

// Explains where a rank's memory goes and how many KV blocks fit into the rest. All ranks have finished loading and
// hold everything but the KV cache. Throws kOutOfMemory if not even two blocks fit, or not as many as the caller asks
// for, naming what is wanted, what is there and the settings that change it.
MemoryPlan plan_memory(RankGroup& ranks, const KvSizing& sizing);
// Takes the KV cache that the plan describes, on every rank. Throws kOutOfMemory saying what was wanted.
void allocate_kv(RankGroup& ranks, const MemoryPlan& plan);

}  // namespace turbomind
