// SPDX-License-Identifier: Apache-2.0
//
// Where the ranks of a communicator meet.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cpu {

// What a rank brings to a collective.
struct CommCall {
  const char* name;  // of the collective; the same literal on every rank
  int64_t bytes;     // of `in`
  tm_dtype dtype;
  int32_t detail;  // reduction or root
  std::byte* in;
  std::byte* out;
};

class CommGroup {
 public:
  explicit CommGroup(int32_t size);

  // The group of an id; made by the first rank that asks. Throws abi::Error if unique_id() has not made the id.
  static std::shared_ptr<CommGroup> find(uint64_t id, int32_t size);
  static uint64_t make_id();

  int32_t size() const { return static_cast<int32_t>(calls_.size()); }
  // Blocks until all ranks have joined.
  void join(int32_t rank, int32_t size);
  void abort();

  // Publishes the rank's call and waits for the others'; then until leave() every rank's memory stays as it is
  // published. Throws abi::Error (TM_DEVICE_ERROR) if the group was aborted: on all ranks or on none.
  void enter(int32_t rank, const CommCall& call);
  // Waits until every rank is done. Not ended by an abort: a rank must not give its memory back while another reads it,
  // and all that have entered come here without waiting for anything else. Throws abi::Error (TM_INVALID_ARGUMENT) on
  // all ranks if their calls differ.
  void leave();

  const CommCall& call(int32_t rank) const { return calls_[rank]; }
  // All ranks issued the same collective on as much data.
  bool calls_agree() const;

 private:
  bool meet(bool abortable);
  bool wait_for_round(uint64_t round, bool abortable);

  std::vector<CommCall> calls_;  // written before a meeting, read after it
  std::mutex mutex_;             // guards the rest; the atomics are written under it and polled without
  std::condition_variable changed_;
  std::vector<bool> joined_;
  int32_t num_joined_ = 0;
  int32_t arrived_ = 0;
  std::atomic<uint64_t> round_{0};
  std::atomic<bool> aborted_{false};
};

}  // namespace turbomind::cpu
