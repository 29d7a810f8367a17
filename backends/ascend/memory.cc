// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <algorithm>
#include <utility>

#include "check.h"
#include "library.h"

namespace turbomind::ascend {

Memory::Memory(tm_memory_kind kind, size_t bytes) : kind_(kind), bytes_(bytes) {
  const Runtime& acl = library().runtime;
  if (bytes > SIZE_MAX - kMemoryAlignment) throw abi::Error(TM_OUT_OF_MEMORY, "an allocation beyond the address space");
  const size_t size = std::max<size_t>(bytes, 1) + kMemoryAlignment;
  if (kind == TM_MEMORY_PINNED_HOST) {
    check(acl.aclrtMallocHost(&allocation_, size), "aclrtMallocHost");
  } else {
    check(acl.aclrtMalloc(&allocation_, size, kAclMallocHugeFirst), "aclrtMalloc");
  }
  const auto address = reinterpret_cast<uintptr_t>(allocation_);
  data_ = reinterpret_cast<void*>((address + kMemoryAlignment - 1) / kMemoryAlignment * kMemoryAlignment);
}

Memory::~Memory() {
  if (!allocation_) return;
  const Runtime& acl = library().runtime;
  kind_ == TM_MEMORY_PINNED_HOST ? acl.aclrtFreeHost(allocation_) : acl.aclrtFree(allocation_);
}

Memory::Memory(Memory&& other) noexcept
    : kind_(other.kind_), allocation_(other.allocation_), data_(other.data_), bytes_(other.bytes_) {
  other.allocation_ = nullptr;
}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(kind_, other.kind_);
  std::swap(allocation_, other.allocation_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace turbomind::ascend
