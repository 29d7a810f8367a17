// SPDX-License-Identifier: Apache-2.0
#include "recorder.h"

#include "tm_backend.hpp"

namespace turbomind::null_backend {

Recorder& Recorder::instance() {
  static Recorder recorder;
  return recorder;
}

void Recorder::record(const std::string& call) {
  const std::lock_guard lock(mutex_);
  const auto fault = faults_.find({call, ++counts_[call]});
  if (fault == faults_.end()) return;
  const tm_status status = fault->second;
  faults_.erase(fault);
  throw abi::Error(status, "injected fault in " + call);
}

void Recorder::fail(const std::string& call, int64_t nth, tm_status status) {
  const std::lock_guard lock(mutex_);
  faults_[{call, counts_[call] + nth}] = status;
}

void Recorder::hold(const std::string& op) {
  const std::lock_guard lock(mutex_);
  held_.insert(op);
}

void Recorder::release() {
  {
    const std::lock_guard lock(mutex_);
    held_.clear();
  }
  released_.notify_all();
}

bool Recorder::may_run(const std::string& op, bool wait) {
  std::unique_lock lock(mutex_);
  const auto is_free = [&] { return held_.count(op) == 0; };
  if (wait) released_.wait(lock, is_free);
  return is_free();
}

int64_t Recorder::count(const std::string& call) const {
  const std::lock_guard lock(mutex_);
  const auto it = counts_.find(call);
  return it == counts_.end() ? 0 : it->second;
}

void Recorder::reset() {
  const std::lock_guard lock(mutex_);
  counts_.clear();
  faults_.clear();
  held_.clear();
}

}  // namespace turbomind::null_backend

#define TM_NULL_EXPORT __attribute__((visibility("default")))

extern "C" TM_NULL_EXPORT void tm_null_reset(void) { turbomind::null_backend::Recorder::instance().reset(); }

extern "C" TM_NULL_EXPORT void tm_null_fail(const char* call, int64_t nth, int32_t status) {
  turbomind::null_backend::Recorder::instance().fail(call, nth, static_cast<tm_status>(status));
}

extern "C" TM_NULL_EXPORT void tm_null_hold(const char* op) { turbomind::null_backend::Recorder::instance().hold(op); }

extern "C" TM_NULL_EXPORT void tm_null_release(void) { turbomind::null_backend::Recorder::instance().release(); }

extern "C" TM_NULL_EXPORT int64_t tm_null_count(const char* call) {
  return turbomind::null_backend::Recorder::instance().count(call);
}
