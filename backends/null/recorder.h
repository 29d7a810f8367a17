// SPDX-License-Identifier: Apache-2.0
//
// Counts calls and injects faults. One recorder per process, reached from tests through the exported hooks below: open
// the plug-in's file again (dlopen, ctypes) and look them up by name.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "tm_backend.h"

extern "C" {
// Forgets all counts and faults.
void tm_null_reset(void);
// The nth call from now (1 = the next one) fails with that status. call: an op's name, or "alloc", "copy_async",
// "stream_synchronize", "plan_update", "capture_begin", "graph_launch", "weight_pack", "context_create".
void tm_null_fail(const char* call, int64_t nth, int32_t status);
// From now on this op stays undone until tm_null_release(): its stream, and whoever waits for that, stands still.
void tm_null_hold(const char* op);
void tm_null_release(void);
// Calls so far. An op counts when it runs, so a replayed op counts at each replay.
int64_t tm_null_count(const char* call);
}

namespace turbomind::null_backend {

class Recorder {
 public:
  static Recorder& instance();

  // Counts a call; throws abi::Error if a fault is due.
  void record(const std::string& call);
  void fail(const std::string& call, int64_t nth, tm_status status);
  void hold(const std::string& op);
  void release();
  // True unless the op is held; with wait, not before it is let go.
  bool may_run(const std::string& op, bool wait);
  int64_t count(const std::string& call) const;
  void reset();

 private:
  mutable std::mutex mutex_;  // guards all below
  std::condition_variable released_;
  std::set<std::string> held_;
  std::map<std::string, int64_t> counts_;
  std::map<std::pair<std::string, int64_t>, tm_status> faults_;  // by call and its absolute number
};

}  // namespace turbomind::null_backend
