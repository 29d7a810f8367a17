// SPDX-License-Identifier: Apache-2.0
//
// The null backend: every required op, no maths. An activation row carries one number, in its first element; the rest
// is never touched. What the sampled tokens are is chosen by the setting "tokens":
//   counter  (default) token = position % vocabulary
//   hash     token = mix(seed, position) % vocabulary
//   context  token = a hash of every token the row attends to, read through the block tables from the KV pools, and of
//            (seed, position) when the temperature is above 0. Wrong blocks, lost writes or stale plans change tokens.
//            A row with a bitmask takes the first token from there on that the mask leaves, never token 0.
// mix() is in ops.cc. Further settings:
//   memory_bytes          device memory, default 1 GiB; an alloc beyond it is TM_OUT_OF_MEMORY
//   asynchronous          1: ops and copies run when the stream is synchronised, not before
//   can_capture           0: no capture (default 1)
//   sample_delay_us       time each sample call takes, default 0
//   host_accessible       0: the host is told to keep off device memory (default 1)
//   weight_formats        comma-separated tm_weight_format numbers it takes; default: all
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tm_backend_host.hpp"

namespace turbomind::null_backend {

enum class TokenRule { kCounter, kHash, kContext };

struct Settings {
  explicit Settings(const tm_config& config);

  TokenRule tokens = TokenRule::kCounter;
  uint64_t memory_bytes = uint64_t{1} << 30;
  bool asynchronous = false;
  bool can_capture = true;
  bool host_accessible = true;
  int64_t sample_delay_us = 0;
  std::set<int> weight_formats;
};

class Context {
 public:
  Context(int32_t index, const tm_config& config, const tm_host_api* host);

  const Settings& settings() const { return settings_; }
  void props(tm_device_props* out) const;
  void mem_info(uint64_t* free_bytes, uint64_t* total_bytes) const;
  void set_thread() {}
  void* alloc(tm_memory_kind kind, size_t bytes);
  void free(tm_memory_kind kind, void* data);
  void query_weight(const tm_weight_desc& desc, tm_weight_info* out) const;
  size_t kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const;
  size_t workspace_size(tm_op_id, const void*) const { return 0; }

 private:
  Settings settings_;
  uint64_t used_bytes_ = 0;
};

struct Task {
  std::function<void()> run;
  const char* op = "";  // which op it is; else empty
};

class Graph;

// Tasks in order. Asynchronous streams keep them until somebody waits or asks; a task's fault then ends that and drops
// the tasks behind it.
class Stream {
 public:
  explicit Stream(Context& context) : context_(context) {}

  Context& context() { return context_; }
  void issue(std::function<void()> work, const char* op = "") { issue(Task{std::move(work), op}); }
  void issue(Task task);
  // Runs the oldest waiting task; false if there is none. One that is held (recorder.h) is waited for, or else counts
  // as none.
  bool advance(bool wait);
  void drain();

  void copy_async(void* dst, const void* src, size_t bytes, tm_copy_kind kind);
  void memset_async(void* dst, int value, size_t bytes);
  void synchronize();
  void capture_begin();
  std::unique_ptr<Graph> capture_end();
  bool capturing() const { return capturing_; }

 private:
  Context& context_;
  std::deque<Task> waiting_;
  std::vector<Task> captured_;
  bool capturing_ = false;
};

class Graph {
 public:
  explicit Graph(std::vector<Task> tasks) : tasks_(std::move(tasks)) {}
  void launch(Stream& stream, tm_plan* const* plans, int32_t num_plans);

 private:
  std::vector<Task> tasks_;
};

class Event {
 public:
  explicit Event(Context&) {}

  void record(Stream& stream);
  void wait(Stream& stream);
  void synchronize();
  // Runs one task of the recording stream, so that polling makes progress.
  bool query();

 private:
  Stream* stream_ = nullptr;
  std::shared_ptr<bool> reached_ = std::make_shared<bool>(true);
};

class Weight {
 public:
  Weight(Stream& stream, const tm_weight_desc& desc, void* dst);
};

class Plan {
 public:
  Plan(Context&, const tm_plan_limits& limits) : step_(limits) {}

  void update(Stream& stream, const tm_step_meta& meta);
  const abi::host::Step& step() const { return step_; }

 private:
  abi::host::Step step_;
};

struct Ops {
#define TM_DECLARE_OP(name) static void name(Stream&, const tm_##name##_args&, const tm_workspace&);
  TM_REQUIRED_OPS(TM_DECLARE_OP)
#undef TM_DECLARE_OP
};

struct Backend {
  static constexpr const char* kName = "null";
  static constexpr const char* kVersion = "1.0.0";
  static std::string probe() { return {}; }
  static int32_t device_count() { return 8; }

  using Context = null_backend::Context;
  using Stream = null_backend::Stream;
  using Event = null_backend::Event;
  using Weight = null_backend::Weight;
  using Plan = null_backend::Plan;
  using Graph = null_backend::Graph;
  using Ops = null_backend::Ops;
};

}  // namespace turbomind::null_backend
