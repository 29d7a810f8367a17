// SPDX-License-Identifier: Apache-2.0
//
// One opened device.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>

#include "memory.h"
#include "profile.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::ascend {

class Constants;

// Initialises ACL once per process. Throws abi::Error if CANN is not usable here.
void initialize_acl();
// The number of devices; 0 if CANN is not usable.
int32_t count_devices();

class Context {
 public:
  // Settings: "deterministic", "num_threads" (of the host; one thread issues the work), "nz" (weights in the fractal
  // layout of the matrix unit, "1" by default), "stall_seconds" (a group of ranks that takes longer for what is queued
  // has stalled; 0: never).
  Context(int32_t device_index, const tm_config& config, const tm_host_api* host);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int32_t device() const { return device_; }
  const Profile& profile() const { return profile_; }
  bool deterministic() const { return deterministic_; }
  bool nz_weights() const { return nz_weights_; }
  int32_t stall_seconds() const { return stall_seconds_; }
  Constants& constants() { return *constants_; }

  void props(tm_device_props* out) const;
  void mem_info(uint64_t* free_bytes, uint64_t* total_bytes) const;
  void* alloc(tm_memory_kind kind, size_t bytes);
  void free(tm_memory_kind kind, void* data);
  // Whether the address lies in host memory that alloc() gave out.
  bool is_pinned(const void* data);
  void set_thread() const;
  // The same for destructors, which may run on any thread and after the device was lost.
  void set_thread_if_possible() const noexcept;

  void query_weight(const tm_weight_desc& desc, tm_weight_info* out) const;
  size_t kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const;
  size_t workspace_size(tm_op_id op, const void* args);

 private:
  void apply(const tm_config& config);

  int32_t device_;
  bool deterministic_ = false;
  bool nz_weights_ = true;
  int32_t stall_seconds_ = 300;
  Profile profile_;
  std::unique_ptr<Constants> constants_;
  std::mutex allocations_mutex_;
  std::unordered_map<void*, Memory> allocations_;  // by the aligned address given out
};

}  // namespace turbomind::ascend
