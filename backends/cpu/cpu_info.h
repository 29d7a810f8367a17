// SPDX-License-Identifier: Apache-2.0
//
// What the operating system says about the processor and the memory this process may use.
#pragma once

#include <cstdint>
#include <string>

namespace turbomind::cpu {

struct MemoryInfo {
  uint64_t free_bytes;   // what could still be allocated without swapping, inside the cgroup's limit
  uint64_t total_bytes;  // physical memory or the cgroup's limit, whichever is lower
};

std::string processor_name();

// Physical cores in the process's affinity mask, at most the cgroup's CPU quota; at least 1.
int usable_physical_cores();

MemoryInfo memory_info();

// Whether the processor has AMX (for bf16, and AVX512_BF16 beside it) and the system lets this process use it.
// Asks Linux for that on the first call, as it gives the tile registers only to processes that do.
bool may_use_amx();

}  // namespace turbomind::cpu
