// SPDX-License-Identifier: Apache-2.0
#include "turbomind/runtime/plugin.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "turbomind/core/error.h"
#include "turbomind/core/log.h"

namespace turbomind {
namespace {

void host_log(void*, tm_log_level level, const char* message) {
  Logger::instance().write(static_cast<LogLevel>(level), message);
}

const tm_host_api* host_api() {
  static const tm_host_api api{
      .struct_size = sizeof(tm_host_api), .abi_major = TM_ABI_MAJOR, .abi_minor = TM_ABI_MINOR, .log = host_log};
  return &api;
}

// Copies a table, leaving NULL what the plug-in's minor version does not have. minimum: its size in version 1.0.
template <class Table>
void copy_table(const std::string& path, const char* name, const Table* from, size_t minimum, Table* to) {
  check(from != nullptr, ErrorCode::kUnsupported, path, ": the ", name, " table is missing");
  check(from->struct_size >= minimum && from->struct_size < (1u << 20), ErrorCode::kUnsupported, path,
        ": struct_size of the ", name, " table: expected at least ", minimum, ", found ", from->struct_size);
  std::memcpy(to, from, std::min(from->struct_size, sizeof(Table)));
}

// Size of a table up to and including its last slot of version 1.0.
#define TM_SIZE_UP_TO(table, slot) (offsetof(table, slot) + sizeof(table::slot))

class SlotCheck {
 public:
  template <class Slot>
  void require(Slot slot, const char* name) {
    if (!slot) missing_ += (missing_.empty() ? "" : ", ") + std::string(name);
  }
  const std::string& missing() const { return missing_; }

 private:
  std::string missing_;
};

std::string missing_slots(const Plugin& plugin) {
  SlotCheck slots;
#define TM_REQUIRE(table, slot) slots.require(plugin.table().slot, #table "." #slot);
#define TM_REQUIRE_DEVICE(slot) TM_REQUIRE(device, slot)
  TM_REQUIRE_DEVICE(count)
  TM_REQUIRE_DEVICE(context_create)
  TM_REQUIRE_DEVICE(context_destroy)
  TM_REQUIRE_DEVICE(props)
  TM_REQUIRE_DEVICE(mem_info)
  TM_REQUIRE_DEVICE(alloc)
  TM_REQUIRE_DEVICE(free)
  TM_REQUIRE_DEVICE(copy_async)
  TM_REQUIRE_DEVICE(memset_async)
  TM_REQUIRE_DEVICE(stream_create)
  TM_REQUIRE_DEVICE(stream_destroy)
  TM_REQUIRE_DEVICE(stream_synchronize)
  TM_REQUIRE_DEVICE(event_create)
  TM_REQUIRE_DEVICE(event_destroy)
  TM_REQUIRE_DEVICE(event_record)
  TM_REQUIRE_DEVICE(event_wait)
  TM_REQUIRE_DEVICE(event_synchronize)
  TM_REQUIRE_DEVICE(event_query)
  TM_REQUIRE_DEVICE(set_thread)
  TM_REQUIRE(weight, query)
  TM_REQUIRE(weight, pack)
  TM_REQUIRE(weight, free)
  TM_REQUIRE(kv, pool_bytes)
  TM_REQUIRE(plan, create)
  TM_REQUIRE(plan, update)
  TM_REQUIRE(plan, free)
  TM_REQUIRE(op, workspace_size)
#define TM_REQUIRE_OP(slot) TM_REQUIRE(op, slot)
  TM_REQUIRED_OPS(TM_REQUIRE_OP)
#undef TM_REQUIRE_OP
#undef TM_REQUIRE_DEVICE
#undef TM_REQUIRE
  // The tables below are optional as a whole, not slot by slot.
  if (const tm_graph_api* graph = plugin.graph()) {
    slots.require(graph->capture_begin, "graph.capture_begin");
    slots.require(graph->capture_end, "graph.capture_end");
    slots.require(graph->launch, "graph.launch");
    slots.require(graph->free, "graph.free");
  }
  if (const tm_comm_api* comm = plugin.comm()) {
    slots.require(comm->unique_id, "comm.unique_id");
    slots.require(comm->init_rank, "comm.init_rank");
    slots.require(comm->free, "comm.free");
    slots.require(comm->abort, "comm.abort");
    slots.require(comm->all_reduce, "comm.all_reduce");
    slots.require(comm->all_gather, "comm.all_gather");
    slots.require(comm->reduce_scatter, "comm.reduce_scatter");
    slots.require(comm->broadcast, "comm.broadcast");
    slots.require(comm->all_to_all, "comm.all_to_all");
  }
  return slots.missing();
}

ErrorCode error_code(tm_status status) {
  switch (status) {
    case TM_INVALID_ARGUMENT:
      return ErrorCode::kInvalidArgument;
    case TM_UNSUPPORTED:
      return ErrorCode::kUnsupported;
    case TM_OUT_OF_MEMORY:
      return ErrorCode::kOutOfMemory;
    case TM_DEVICE_ERROR:
      return ErrorCode::kDevice;
    case TM_DEVICE_LOST:
      return ErrorCode::kDeviceLost;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

std::unique_ptr<const Plugin> Plugin::load(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  check(library != nullptr, ErrorCode::kUnsupported, path, ": cannot be loaded: ", library ? "" : dlerror());
  const auto entry = reinterpret_cast<tm_backend_get_api_fn>(dlsym(library, TM_BACKEND_ENTRY));
  check(entry != nullptr, ErrorCode::kUnsupported, path, ": is no TurboMind plug-in: it does not export ",
        TM_BACKEND_ENTRY);
  const tm_backend_api* table = nullptr;
  const tm_status status = entry(host_api(), TM_ABI_MAJOR, &table);
  check(status == TM_OK && table != nullptr, ErrorCode::kUnsupported, path, ": refused ABI version ", TM_ABI_MAJOR, ".",
        TM_ABI_MINOR, " of this core (status ", static_cast<int>(status), ")");
  return from_table(*table, path);
}

std::unique_ptr<const Plugin> Plugin::from_table(const tm_backend_api& table, const std::string& path) {
  return std::unique_ptr<const Plugin>(new Plugin(table, path));
}

Plugin::Plugin(const tm_backend_api& table, const std::string& path) : path_(path) {
  // Checked before anything else is read: with another major the rest of the table may mean something else.
  check(table.abi_major == TM_ABI_MAJOR, ErrorCode::kUnsupported, path, ": ABI major version: expected ", TM_ABI_MAJOR,
        ", found ", table.abi_major);
  copy_table(path, "backend", &table, TM_SIZE_UP_TO(tm_backend_api, op), &api_);
  check(api_.name && *api_.name && api_.version && api_.probe && api_.last_error, ErrorCode::kUnsupported, path,
        ": name, version, probe and last_error are required");
  name_ = api_.name;
  version_ = api_.version;
  copy_table(path, "device", api_.device, TM_SIZE_UP_TO(tm_device_api, set_thread), &device_);
  copy_table(path, "weight", api_.weight, TM_SIZE_UP_TO(tm_weight_api, free), &weight_);
  copy_table(path, "kv", api_.kv, TM_SIZE_UP_TO(tm_kv_api, pool_bytes), &kv_);
  copy_table(path, "plan", api_.plan, TM_SIZE_UP_TO(tm_plan_api, free), &plan_);
  copy_table(path, "op", api_.op, TM_SIZE_UP_TO(tm_op_api, all_reduce_add_rms_norm), &op_);
  if ((has_graph_ = api_.graph != nullptr)) {
    copy_table(path, "graph", api_.graph, TM_SIZE_UP_TO(tm_graph_api, free), &graph_);
  }
  if ((has_comm_ = api_.comm != nullptr)) {
    copy_table(path, "comm", api_.comm, TM_SIZE_UP_TO(tm_comm_api, all_to_all), &comm_);
  }
  const std::string missing = missing_slots(*this);
  check(missing.empty(), ErrorCode::kUnsupported, path, ": required slots are missing: ", missing);
}

#undef TM_SIZE_UP_TO

ProbeResult Plugin::probe() const {
  char reason[512] = "";
  const tm_status status = api_.probe(reason, sizeof reason);
  if (status == TM_OK) return {true, ""};
  return {false, reason[0] ? reason : "the plug-in gives no reason"};
}

int32_t Plugin::device_count() const {
  int32_t count = 0;
  check_status(device_.count(&count), "count");
  return count;
}

void Plugin::throw_status(tm_status status, const char* call) const {
  const ErrorCode code = error_code(status);
  const char* text = api_.last_error();
  fail(code, name_, " backend: ", call, ": ", text && *text ? text : to_string(code));
}

}  // namespace turbomind
