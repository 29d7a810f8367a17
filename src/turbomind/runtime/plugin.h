// SPDX-License-Identifier: Apache-2.0
//
// A backend plug-in: a shared library that exports the table of tm_backend.h.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tm_backend.h"

namespace turbomind {

struct ProbeResult {
  bool usable;
  std::string reason;  // why not
};

// The loaded library with its tables checked and copied. Slots that the plug-in's minor version does not know are NULL
// here, so callers test slots only, never versions. Stays loaded as long as the process lives.
class Plugin {
 public:
  // Throws kUnsupported if the file is no plug-in, its ABI differs or required slots are missing (all are listed).
  static std::unique_ptr<const Plugin> load(const std::string& path);
  // For a table that needs no file (tests). path: used in messages only.
  static std::unique_ptr<const Plugin> from_table(const tm_backend_api& table, const std::string& path);

  const std::string& name() const { return name_; }
  const std::string& version() const { return version_; }
  const std::string& path() const { return path_; }
  // Usable on this machine? Opens no device.
  ProbeResult probe() const;
  // Devices this plug-in can open on this machine.
  int32_t device_count() const;

  const tm_device_api& device() const { return device_; }
  const tm_weight_api& weight() const { return weight_; }
  const tm_kv_api& kv() const { return kv_; }
  const tm_plan_api& plan() const { return plan_; }
  const tm_op_api& op() const { return op_; }
  // Both optional.
  const tm_graph_api* graph() const { return has_graph_ ? &graph_ : nullptr; }
  const tm_comm_api* comm() const { return has_comm_ ? &comm_ : nullptr; }

  // Throws the Error for a failed call: "<backend>: <call>: <the plug-in's own words>". No-op for TM_OK.
  void check_status(tm_status status, const char* call) const {
    if (status != TM_OK) [[unlikely]] {
      throw_status(status, call);
    }
  }

 private:
  Plugin(const tm_backend_api& table, const std::string& path);
  [[noreturn]] void throw_status(tm_status status, const char* call) const;

  std::string path_;
  std::string name_;
  std::string version_;
  tm_backend_api api_{};
  tm_device_api device_{};
  tm_weight_api weight_{};
  tm_kv_api kv_{};
  tm_plan_api plan_{};
  tm_op_api op_{};
  tm_graph_api graph_{};
  tm_comm_api comm_{};
  bool has_graph_ = false;
  bool has_comm_ = false;
};

}  // namespace turbomind
