// SPDX-License-Identifier: Apache-2.0
//
// The null plug-in with its test hooks (backends/null/recorder.h). Counts and faults are forgotten at construction.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <string>

#include "turbomind/core/error.h"
#include "turbomind/runtime/registry.h"

namespace turbomind::test {

class NullBackend {
 public:
  explicit NullBackend(const std::string& path) : plugin_(PluginRegistry::instance().load(path)) {
    library_ = dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD);
    hook<void (*)()>("tm_null_reset")();
  }

  const Plugin& plugin() const { return plugin_; }
  // The nth call from now fails with that status.
  void fail(const char* call, int64_t nth, tm_status status) const {
    hook<void (*)(const char*, int64_t, int32_t)>("tm_null_fail")(call, nth, status);
  }
  void hold(const char* op) const { hook<void (*)(const char*)>("tm_null_hold")(op); }
  void release() const { hook<void (*)()>("tm_null_release")(); }
  int64_t count(const char* call) const { return hook<int64_t (*)(const char*)>("tm_null_count")(call); }

 private:
  template <class Fn>
  Fn hook(const char* name) const {
    void* symbol = library_ ? dlsym(library_, name) : nullptr;
    check(symbol != nullptr, ErrorCode::kInternal, "null plug-in: hook ", name, " is missing");
    return reinterpret_cast<Fn>(symbol);
  }

  const Plugin& plugin_;
  void* library_;
};

}  // namespace turbomind::test
