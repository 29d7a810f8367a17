// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::ascend {

inline constexpr size_t kMemoryAlignment = 512;  // bytes; what aclrtMalloc promises is less

// Device or pinned host memory that frees itself.
class Memory {
 public:
  Memory() = default;
  // Throws abi::Error (TM_OUT_OF_MEMORY, ...). Uninitialised; at least one byte.
  Memory(tm_memory_kind kind, size_t bytes);
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;

  void* data() const { return data_; }  // aligned to kMemoryAlignment
  size_t bytes() const { return bytes_; }
  tm_memory_kind kind() const { return kind_; }

 private:
  tm_memory_kind kind_ = TM_MEMORY_DEVICE;
  void* allocation_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace turbomind::ascend
