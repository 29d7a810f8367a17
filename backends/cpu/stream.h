// SPDX-License-Identifier: Apache-2.0
//
// Ops run to completion on the calling thread and its pool, so a stream is only an order: it holds no queue.
#pragma once

#include <cstring>

#include "context.h"
#include "memory.h"

namespace turbomind::cpu {

class Stream {
 public:
  explicit Stream(Context& context) : context_(context) {}

  Context& context() const { return context_; }
  ThreadPool& pool() const { return context_.pool(); }
  const KernelTable& kernels() const { return context_.kernels(); }

  void copy_async(void* dst, const void* src, size_t bytes, tm_copy_kind) {
    if (bytes) std::memmove(dst, src, bytes);
  }
  void memset_async(void* dst, int value, size_t bytes) {
    if (bytes) set_memory(dst, value, bytes);
  }
  void synchronize() {}

 private:
  Context& context_;
};

}  // namespace turbomind::cpu
