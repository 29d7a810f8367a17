// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "cpu_info.h"

namespace turbomind::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kHugePageThreshold = 2 * kHugePage;

size_t round_up(size_t bytes, size_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

void* allocate_memory(size_t bytes) {
  if (bytes < kHugePageThreshold)
    return std::aligned_alloc(kMemoryAlignment, round_up(bytes + !bytes, kMemoryAlignment));
  // The kernel promises more than it has; an honest refusal here beats being killed at the first write.
  if (bytes > memory_info().free_bytes) return nullptr;
  void* data = std::aligned_alloc(kHugePage, round_up(bytes, kHugePage));
  if (data) madvise(data, round_up(bytes, kHugePage), MADV_HUGEPAGE);
  return data;
}

void free_memory(void* data) { std::free(data); }

void set_memory(void* data, int value, size_t bytes) {
  auto* begin = static_cast<char*>(data);
  char* end = begin + bytes;
  const auto first = reinterpret_cast<char*>(round_up(reinterpret_cast<size_t>(begin), kHugePage));
  const auto last = reinterpret_cast<char*>(reinterpret_cast<size_t>(end) / kHugePage * kHugePage);
  if (value != 0 || first >= last || madvise(first, static_cast<size_t>(last - first), MADV_DONTNEED) != 0) {
    std::memset(data, value, bytes);
    return;
  }
  std::memset(begin, 0, static_cast<size_t>(first - begin));
  std::memset(last, 0, static_cast<size_t>(end - last));
}

}  // namespace turbomind::cpu
