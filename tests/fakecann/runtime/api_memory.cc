// SPDX-License-Identifier: Apache-2.0
//
// Exported functions: memory and copies.
#include <cstring>

#include "abi/runtime.h"
#include "runtime/memory.h"
#include "runtime/stream.h"

namespace fakecann {
namespace {

// One side of a copy: an alias of device memory, or the host's own address.
char* resolve(const void* pointer, size_t count, bool is_device) {
  if (!is_device) return static_cast<char*>(const_cast<void*>(pointer));
  return Memory::instance().alias(pointer, count, -1);
}

struct Copy {
  void* to;
  const void* from;
  size_t count;
  bool to_device;
  bool from_device;
};

Copy check_copy(void* to, size_t to_size, const void* from, size_t count, int kind) {
  if (to == nullptr || from == nullptr) fail(kInvalidParameter, "null address in a copy");
  if (count > to_size) fail(kInvalidParameter, "the copy is larger than its destination");
  const bool to_device = Memory::instance().is_device(to), from_device = Memory::instance().is_device(from);
  const int found = (from_device ? 2 : 0) + (to_device ? 1 : 0);  // the order of the kinds
  if (kind != ACL_MEMCPY_DEFAULT && kind != found) {
    fail(kInvalidParameter,
         "the copy's kind is " + std::to_string(kind) + ", its addresses are of kind " + std::to_string(found));
  }
  return {to, from, count, to_device, from_device};
}

void run_copy(const Copy& copy) {
  if (copy.count == 0) return;
  char* to = resolve(copy.to, copy.count, copy.to_device);
  std::memmove(to, resolve(copy.from, copy.count, copy.from_device), copy.count);
}

bool touches_pageable(const Copy& copy) {
  Memory& memory = Memory::instance();
  return (!copy.to_device && !memory.is_pinned(copy.to, copy.count)) ||
         (!copy.from_device && !memory.is_pinned(copy.from, copy.count));
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

aclError aclrtMalloc(void** pointer, size_t size, int) {
  return guarded(__func__, [&] {
    if (pointer == nullptr) fail(kInvalidParameter, "null argument");
    *pointer = Memory::instance().allocate(current_context().device, size);
  });
}

aclError aclrtMallocAlign32(void** pointer, size_t size, int policy) { return aclrtMalloc(pointer, size, policy); }

aclError aclrtFree(void* pointer) {
  return guarded(__func__, [&] { Memory::instance().release(pointer); });
}

aclError aclrtMallocHost(void** pointer, size_t size) {
  return guarded(__func__, [&] {
    if (pointer == nullptr) fail(kInvalidParameter, "null argument");
    current_context();
    *pointer = Memory::instance().allocate_host(size);
  });
}

aclError aclrtFreeHost(void* pointer) {
  return guarded(__func__, [&] { Memory::instance().release_host(pointer); });
}

aclError aclrtGetMemInfo(int, size_t* free, size_t* total) {
  return guarded(__func__, [&] {
    *total = config().memory;
    *free = config().memory - Memory::instance().used(current_context().device);
  });
}

// A synchronous copy takes no part in any stream's order: it sees what has run by now.
aclError aclrtMemcpy(void* to, size_t to_size, const void* from, size_t count, int kind) {
  return guarded(__func__, [&] {
    current_context();
    refuse_while_capturing(nullptr, Forbidden::kSync);
    run_copy(check_copy(to, to_size, from, count, kind));
  });
}

aclError aclrtMemcpyAsync(void* to, size_t to_size, const void* from, size_t count, int kind, aclrtStream handle) {
  return guarded(__func__, [&] {
    Stream& stream = find_stream(handle);
    const Copy copy = check_copy(to, to_size, from, count, kind);
    if (!copy.to_device && !copy.from_device) fail(kNotSupported, "an asynchronous copy between host addresses");
    const bool is_pageable = touches_pageable(copy);
    if (is_pageable) refuse_while_capturing(&stream, Forbidden::kPageable);
    enqueue(stream, "copy", [copy](Stream&) { run_copy(copy); });
    // A pageable copy has been made when the call returns.
    if (is_pageable) synchronize(stream, 0, kStreamSyncTimeout);
    after_call();
  });
}

aclError aclrtMemset(void* pointer, size_t size, int32_t value, size_t count) {
  return guarded(__func__, [&] {
    current_context();
    refuse_while_capturing(nullptr, Forbidden::kSync);
    if (count > size) fail(kInvalidParameter, "more is set than there is");
    std::memset(resolve(pointer, count, Memory::instance().is_device(pointer)), value, count);
  });
}

aclError aclrtMemsetAsync(void* pointer, size_t size, int32_t value, size_t count, aclrtStream handle) {
  return guarded(__func__, [&] {
    Stream& stream = find_stream(handle);
    if (count > size) fail(kInvalidParameter, "more is set than there is");
    if (!Memory::instance().is_device(pointer)) fail(kInvalidParameter, "aclrtMemsetAsync of host memory");
    enqueue(stream, "memset", [=](Stream& on) {
      std::memset(Memory::instance().alias(pointer, count, on.context->device), value, count);
    });
    after_call();
  });
}
