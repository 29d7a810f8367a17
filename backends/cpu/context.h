// SPDX-License-Identifier: Apache-2.0
//
// One opened CPU "device": a thread pool, the kernels for its instruction set, and memory.
#pragma once

#include "config.h"
#include "kernels/kernel_table.h"
#include "thread_pool.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cpu {

class Context {
 public:
  Context(int32_t device_index, const tm_config& config, const tm_host_api* host);

  ThreadPool& pool() { return pool_; }
  const KernelTable& kernels() const { return kernels_; }

  void props(tm_device_props* out) const;
  void mem_info(uint64_t* free_bytes, uint64_t* total_bytes) const;
  void* alloc(tm_memory_kind kind, size_t bytes);
  void free(tm_memory_kind kind, void* data);
  void set_thread() {}

  void query_weight(const tm_weight_desc& desc, tm_weight_info* out) const;
  size_t kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const;
  size_t workspace_size(tm_op_id op, const void* args);

 private:
  Config config_;
  KernelTable kernels_;
  ThreadPool pool_;
};

}  // namespace turbomind::cpu
