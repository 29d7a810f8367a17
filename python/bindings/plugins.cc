// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings.h"
#include "turbomind/core/dtype.h"
#include "turbomind/core/error.h"
#include "turbomind/core/log.h"
#include "turbomind/runtime/device.h"
#include "turbomind/runtime/registry.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace turbomind::bindings {
namespace {

std::vector<std::string> dtype_names(uint64_t mask) {
  std::vector<std::string> names;
  for (int dtype = 0; dtype < 64; ++dtype) {
    if (mask >> dtype & 1) names.emplace_back(dtype_name(static_cast<tm_dtype>(dtype)));
  }
  return names;
}

py::dict device_dict(const Plugin& plugin) {
  const Device device(plugin, 0);
  const tm_device_props& props = device.props();
  const MemoryInfo memory = device.memory_info();
  std::vector<int32_t> block_sizes;
  for (const int32_t size : props.kv_block_sizes) {
    if (size > 0) block_sizes.push_back(size);
  }
  return py::dict("count"_a = plugin.device_count(), "name"_a = props.name, "arch"_a = props.arch,
                  "total_memory_bytes"_a = memory.total_bytes, "free_memory_bytes"_a = memory.free_bytes,
                  "activation_dtypes"_a = dtype_names(props.activation_dtypes),
                  "kv_dtypes"_a = dtype_names(props.kv_dtypes), "kv_block_sizes"_a = block_sizes,
                  "deterministic"_a = props.always_deterministic != 0, "graph_capture"_a = props.can_capture != 0,
                  "compute_units"_a = props.num_compute_units);
}

// What check_env prints: every plug-in along the paths, and the first device of each usable one.
py::list list_plugins(const std::vector<std::string>& paths) {
  PluginRegistry& registry = PluginRegistry::instance();
  py::list out;
  for (const PluginInfo& info : registry.list(paths)) {
    py::dict entry("path"_a = info.path, "name"_a = info.name, "version"_a = info.version, "usable"_a = info.usable,
                   "reason"_a = info.reason, "device"_a = py::none());
    if (info.usable) entry["device"] = device_dict(registry.load(info.path));
    out.append(entry);
  }
  return out;
}

void set_log_level(const std::string& word) {
  for (const LogLevel level : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    if (word == to_string(level)) return Logger::instance().set_level(level);
  }
  fail(ErrorCode::kInvalidArgument, "log_level: expected debug, info, warning or error, found '", word, "'");
}

}  // namespace

void bind_plugins(py::module_& module) {
  module.def("list_plugins", &list_plugins, "paths"_a);
  module.def("set_log_level", &set_log_level, "level"_a);
}

}  // namespace turbomind::bindings
