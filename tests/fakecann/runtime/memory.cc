// SPDX-License-Identifier: Apache-2.0
#include "runtime/memory.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace fakecann {

bool take_fault_unit(const char* name, int64_t units);

namespace {

constexpr size_t kArena = size_t{1} << 42;  // addresses only; pages come with the allocations
constexpr size_t kPage = 4096;
constexpr size_t kPoisonFile = size_t{16} << 20;
// 0xFF is a NaN in every float format and -1 in every signed integer.
constexpr int kPoison = 0xFF;
constexpr int kKeptBytes = 32 << 20;  // the most that mallopt takes for a block of the heap

size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

char* reserve() {
  void* base = mmap(nullptr, kArena, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) fail(kOutOfMemory, "the emulator's address range cannot be reserved");
  return static_cast<char*>(base);
}

}  // namespace

Memory& Memory::instance() {
  static auto* memory = new Memory;
  return *memory;
}

Memory::Memory() : public_base_(reserve()), alias_base_(reserve()), poison_file_(memfd_create("fakecann", 0)) {
  // Operators' arrays come and go with every task; a third of the time would go into getting their pages anew.
  mallopt(M_MMAP_THRESHOLD, kKeptBytes);
  mallopt(M_TRIM_THRESHOLD, 16 * kKeptBytes);
  const std::vector<char> bytes(kPoisonFile, static_cast<char>(kPoison));
  if (poison_file_ < 0 || write(poison_file_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
    fail(kOutOfMemory, "the emulator's poison file cannot be written");
  }
}

// Copy-on-write pages of one poisoned file: a large pool costs memory only where something is written.
void Memory::poison(char* alias, size_t bytes) const {
  for (size_t at = 0; at < bytes; at += kPoisonFile) {
    const size_t part = std::min(kPoisonFile, bytes - at);
    void* mapped = mmap(alias + at, part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, poison_file_, 0);
    if (mapped == MAP_FAILED) fail(kOutOfMemory, "the host has no memory for the emulated device");
  }
}

void* Memory::allocate(int device, size_t size) {
  if (size == 0) fail(kInvalidParameter, "aclrtMalloc of 0 bytes");
  const size_t reserved = round_up(size, 32) + 32;
  if (used_[device] + reserved > config().memory) fail(kOutOfMemory, "device memory is exhausted");
  if (!take_fault_unit("memory", static_cast<int64_t>(reserved)))
    fail(kOutOfMemory, "injected: device memory is exhausted");
  // The interface promises 64-byte starts and no more.
  const size_t start = next_ + 64 * (1 + 2 * draw(8));
  const size_t mapped = round_up(start + reserved - next_, kPage);
  if (next_ + mapped + kPage > kArena) fail(kOutOfMemory, "the emulator's addresses are used up");
  poison(alias_base_ + next_, mapped);
  const auto address = reinterpret_cast<uintptr_t>(public_base_ + start);
  allocations_[address] = {size, mapped, device};
  used_[device] += reserved;
  next_ += mapped + kPage;
  return reinterpret_cast<void*>(address);
}

void Memory::release(void* pointer) {
  const auto found = allocations_.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == allocations_.end()) fail(kInvalidParameter, "aclrtFree of what aclrtMalloc did not give, or twice");
  const size_t page_start = (found->first - reinterpret_cast<uintptr_t>(public_base_)) / kPage * kPage;
  mmap(alias_base_ + page_start, found->second.mapped, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  used_[found->second.device] -= round_up(found->second.size, 32) + 32;
  allocations_.erase(found);
}

void Memory::release_device(int device) {
  std::vector<void*> owned;
  for (const auto& [address, allocation] : allocations_) {
    if (allocation.device == device) owned.push_back(reinterpret_cast<void*>(address));
  }
  for (void* pointer : owned) release(pointer);
}

void* Memory::allocate_host(size_t size) {
  if (size == 0) fail(kInvalidParameter, "aclrtMallocHost of 0 bytes");
  void* pointer = std::aligned_alloc(64, round_up(size, 64));
  if (pointer == nullptr) fail(kOutOfMemory, "host memory is exhausted");
  std::memset(pointer, kPoison, size);
  pinned_[reinterpret_cast<uintptr_t>(pointer)] = size;
  return pointer;
}

void Memory::release_host(void* pointer) {
  const auto found = pinned_.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == pinned_.end()) fail(kInvalidParameter, "aclrtFreeHost of what aclrtMallocHost did not give, or twice");
  std::memset(pointer, kPoison, found->second);
  pinned_.erase(found);
  std::free(pointer);
}

size_t Memory::used(int device) const {
  const auto found = used_.find(device);
  return found == used_.end() ? 0 : found->second;
}

bool Memory::is_device(const void* pointer) const {
  const auto* address = static_cast<const char*>(pointer);
  return address >= public_base_ && address < public_base_ + kArena;
}

bool Memory::is_pinned(const void* pointer, size_t size) const {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  auto found = pinned_.upper_bound(address);
  return found != pinned_.begin() && address + size <= (--found)->first + found->second;
}

char* Memory::alias(const void* pointer, size_t size, int device) const {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  auto found = allocations_.upper_bound(address);
  if (found == allocations_.begin() || address + size > (--found)->first + found->second.size) {
    fail(kAiCoreException,
         "a device address outside every live allocation is used (" + std::to_string(size) + " bytes)");
  }
  if (device >= 0 && found->second.device != device) {
    fail(kAiCoreException,
         "memory of device " + std::to_string(found->second.device) + " used on device " + std::to_string(device));
  }
  return alias_base_ + (address - reinterpret_cast<uintptr_t>(public_base_));
}

}  // namespace fakecann
