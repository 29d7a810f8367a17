// SPDX-License-Identifier: Apache-2.0
//
// Owners of what a backend hands out. Each keeps its device's context alive, so they may be destroyed in any order.
// Every call throws Error with the backend's words when the status is not TM_OK.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "turbomind/core/config.h"
#include "turbomind/core/error.h"
#include "turbomind/core/tensor.h"
#include "turbomind/runtime/plugin.h"

namespace turbomind {

// Bytes; what tm_workspace asks for, so every backend's alloc() must give it.
inline constexpr size_t kMemoryAlignment = 256;

// One opened device, shared by everything made from it.
struct DeviceContext {
  DeviceContext(const Plugin& plugin, int32_t index, const Config& config);
  ~DeviceContext();
  DeviceContext(const DeviceContext&) = delete;
  DeviceContext& operator=(const DeviceContext&) = delete;

  const Plugin& plugin;
  tm_context* handle = nullptr;
  tm_device_props props{};
};

// Move-only owner of one handle.
template <class T>
class Handle {
 public:
  using Free = void (*)(T*);

  Handle() = default;
  Handle(std::shared_ptr<const DeviceContext> context, T* handle, Free free)
      : context_(std::move(context)), handle_(handle), free_(free) {}
  Handle(Handle&& other) noexcept { *this = std::move(other); }
  Handle& operator=(Handle&& other) noexcept {
    std::swap(context_, other.context_);
    std::swap(handle_, other.handle_);
    std::swap(free_, other.free_);
    return *this;
  }
  ~Handle() {
    if (handle_) free_(handle_);
  }

  T* get() const { return handle_; }
  const Plugin& plugin() const { return context_->plugin; }
  const std::shared_ptr<const DeviceContext>& context() const { return context_; }

 private:
  std::shared_ptr<const DeviceContext> context_;
  T* handle_ = nullptr;
  Free free_ = nullptr;
};

struct MemoryInfo {
  uint64_t free_bytes;
  uint64_t total_bytes;
};

class Device {
 public:
  Device(const Plugin& plugin, int32_t index, const Config& config = {});

  const Plugin& plugin() const { return context_->plugin; }
  const tm_device_props& props() const { return context_->props; }
  tm_context* handle() const { return context_->handle; }
  const std::shared_ptr<const DeviceContext>& context() const { return context_; }

  MemoryInfo memory_info() const;
  // Called once by each thread that issues work.
  void set_thread() const;
  // True if steps can be captured and replayed.
  bool can_capture() const { return props().can_capture && plugin().graph(); }
  // Device bytes of one layer's KV pool. Throws kUnsupported for a spec the backend does not offer.
  size_t kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const;

 private:
  std::shared_ptr<const DeviceContext> context_;
};

class Graph {
 public:
  Graph(std::shared_ptr<const DeviceContext> context, tm_graph* graph);

  // plans: every plan the captured ops refer to, updated for this replay.
  void launch(class Stream& stream, std::span<tm_plan* const> plans) const;

 private:
  Handle<tm_graph> handle_;
};

class Stream {
 public:
  explicit Stream(const Device& device);

  tm_stream* handle() const { return handle_.get(); }
  const Plugin& plugin() const { return handle_.plugin(); }
  void copy(void* dst, const void* src, size_t bytes, tm_copy_kind kind);
  void memset(void* dst, int value, size_t bytes);
  // Also reports errors of earlier asynchronous work.
  void synchronize();
  // After a failure: waits until nothing is on its way; what goes wrong meanwhile is logged. Throws kDeviceLost only.
  void settle();

  // Ops issued between the two are recorded, not run. Throws kUnsupported where the backend cannot capture.
  void capture_begin();
  Graph capture_end();
  bool capturing() const { return capturing_; }
  // True once a graph of this stream's ops exists: memory those ops used must not move any more.
  bool has_captured() const { return has_captured_; }

 private:
  Handle<tm_stream> handle_;
  bool capturing_ = false;
  bool has_captured_ = false;
};

class Event {
 public:
  explicit Event(const Device& device);

  void record(Stream& stream);
  // The stream waits for the event; the host does not.
  void wait(Stream& stream);
  void synchronize();
  bool reached();

 private:
  Handle<tm_event> handle_;
};

// Device or pinned host memory.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Device& device, size_t bytes, tm_memory_kind kind = TM_MEMORY_DEVICE);
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<const DeviceContext> context_;
  void* data_ = nullptr;
  size_t bytes_ = 0;
  tm_memory_kind kind_ = TM_MEMORY_DEVICE;
};

// Host metadata of a step, see tm_step_meta.
class Plan {
 public:
  Plan(const Device& device, tm_plan_limits limits);

  tm_plan* handle() const { return handle_.get(); }
  void update(Stream& stream, tm_step_meta meta);

 private:
  Handle<tm_plan> handle_;
};

// A weight in the backend's own layout, with the memory it lies in.
class PackedWeight {
 public:
  PackedWeight() = default;
  // keep_alive: the source's memory; held only if the backend goes on reading it.
  PackedWeight(const Device& device, Stream& stream, tm_weight_desc desc, std::shared_ptr<const void> keep_alive);

  // Throws where the call fails; an unsupported weight is an answer, not an error.
  static tm_weight_info query(const Device& device, tm_weight_desc desc);

  const tm_weight* handle() const { return handle_.get(); }
  WeightFormat format() const { return format_; }
  int64_t rows() const { return rows_; }  // of one expert
  int64_t cols() const { return cols_; }
  int32_t num_experts() const { return num_experts_; }
  // Device memory, not counting what is borrowed.
  size_t device_bytes() const { return buffer_.bytes(); }
  bool borrows_source() const { return source_ != nullptr; }

 private:
  std::shared_ptr<const void> source_;
  Buffer buffer_;
  Handle<tm_weight> handle_;  // last: freed before the memory it lies in
  WeightFormat format_ = TM_WEIGHT_F32;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  int32_t num_experts_ = 0;
};

}  // namespace turbomind
