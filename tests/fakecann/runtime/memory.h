// SPDX-License-Identifier: Apache-2.0
//
// Device memory. Addresses given out lie in a range that nothing is mapped to, so that host code which reads or writes
// through one traps; the emulated device reaches the bytes through an alias at a fixed distance. No address is given
// out twice, so a use after free is always seen.
#ifndef FAKECANN_RUNTIME_MEMORY_H_
#define FAKECANN_RUNTIME_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "runtime/core.h"

#pragma GCC visibility push(default)

namespace fakecann {

class Memory {
 public:
  static Memory& instance();

  void* allocate(int device, size_t size);
  void release(void* pointer);
  void release_device(int device);
  void* allocate_host(size_t size);
  void release_host(void* pointer);
  size_t used(int device) const;
  size_t live() const { return allocations_.size() + pinned_.size(); }

  bool is_device(const void* pointer) const;
  bool is_pinned(const void* pointer, size_t size) const;
  // Where the device finds [pointer, pointer + size). Refuses, as an AI Core would, what is not wholly inside one live
  // allocation of the device; any device will do when `device` is negative.
  char* alias(const void* pointer, size_t size, int device) const;

 private:
  struct Allocation {
    size_t size;
    size_t mapped;
    int device;
  };

  Memory();
  void poison(char* alias, size_t bytes) const;

  char* public_base_ = nullptr;
  char* alias_base_ = nullptr;
  size_t next_ = 0;
  int poison_file_ = -1;
  std::map<uintptr_t, Allocation> allocations_;
  std::map<uintptr_t, size_t> pinned_;
  std::map<int, size_t> used_;
};

}  // namespace fakecann

#pragma GCC visibility pop

#endif  // FAKECANN_RUNTIME_MEMORY_H_
