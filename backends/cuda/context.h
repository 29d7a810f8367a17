// SPDX-License-Identifier: Apache-2.0
//
// One opened GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cuda {

class Gemm;

class Context {
 public:
  // Settings: "deterministic" (a row's bits do not depend on the rows around it), "num_threads" (of the host; nothing
  // here uses more than one).
  Context(int32_t device_index, const tm_config& config, const tm_host_api* host);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int device() const { return device_; }
  int num_sms() const { return properties_.multiProcessorCount; }
  // 10 * major + minor of the compute capability.
  int architecture() const { return 10 * properties_.major + properties_.minor; }
  bool deterministic() const { return deterministic_; }
  Gemm& gemm() { return *gemm_; }

  void props(tm_device_props* out) const;
  void mem_info(uint64_t* free_bytes, uint64_t* total_bytes) const;
  void* alloc(tm_memory_kind kind, size_t bytes);
  void free(tm_memory_kind kind, void* data);
  void set_thread() const;

  void query_weight(const tm_weight_desc& desc, tm_weight_info* out) const;
  size_t kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const;
  size_t workspace_size(tm_op_id op, const void* args);

 private:
  int device_;
  bool deterministic_ = false;
  cudaDeviceProp properties_{};
  std::unique_ptr<Gemm> gemm_;
};

}  // namespace turbomind::cuda
