// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace turbomind::cpu {

inline constexpr size_t kMemoryAlignment = 256;  // bytes; every allocation is aligned at least so

// nullptr when the memory is not there. Buffers of a few MiB and more ask for huge pages: weights and KV are read as
// streams, and address translation would cost more than the reads.
void* allocate_memory(size_t bytes);
void free_memory(void* data);
// memset on memory of allocate_memory. Zeroing gives whole pages back to the kernel, which zeroes them at their next
// touch: a KV pool costs time and memory only as it fills.
void set_memory(void* data, int value, size_t bytes);

}  // namespace turbomind::cpu
