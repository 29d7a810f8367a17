// SPDX-License-Identifier: Apache-2.0
//
// The two places where callers' threads meet the engine thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "turbomind/engine/request.h"
#include "turbomind/engine/sequence.h"
#include "turbomind/engine/step_output.h"

namespace turbomind {

// What callers want from the engine thread. Thread-safe.
class SubmitQueue {
 public:
  enum class Closing { kOpen, kDrain, kCancel };
  struct Mail {
    std::vector<std::shared_ptr<const Request>> requests;
    std::vector<uint64_t> cancelled;
    Closing closing = Closing::kOpen;
  };

  // capacity: requests that wait to be scheduled for the first time.
  explicit SubmitQueue(int64_t capacity) : capacity_(capacity) {}

  // Throws kQueueFull, or what close() gave as reason.
  void submit(std::shared_ptr<const Request> request);
  void cancel(uint64_t request_id);
  // No request is taken any more; submit() throws this. A second call may turn a drain into a cancel, not back.
  void close(Closing closing, ErrorCode code, const std::string& message);

  // Engine thread: everything since the last call. Sleeps so long at most until there is something; none: for as long
  // as that takes.
  Mail take(std::optional<std::chrono::microseconds> patience);
  // Engine thread: so many requests no longer wait for their first step.
  void release_places(int64_t count);

 private:
  const int64_t capacity_;
  std::mutex mutex_;  // guards all below
  std::condition_variable filled_;
  Mail mail_;
  bool has_news_ = false;
  int64_t num_waiting_ = 0;
  std::optional<Error> closed_;
};

// Outputs on their way to the caller. Those of one sequence that wait are merged, so that a slow caller holds up memory
// in proportion to what it asked for, no more. Thread-safe.
class OutputQueue {
 public:
  // Throws kInternal where the system has no event descriptor left.
  OutputQueue();
  ~OutputQueue();
  OutputQueue(const OutputQueue&) = delete;
  OutputQueue& operator=(const OutputQueue&) = delete;

  // Takes all outputs, at most one of each sequence, and wakes the caller once. Where memory fails, those not taken
  // stay with the caller, to come again before further ones of the same sequences.
  void push(std::vector<StepOutput>& outputs);
  // All that waits; sleeps up to timeout for the first. Returns at once when closed.
  std::vector<Output> poll(std::chrono::milliseconds timeout);
  void close();
  int event_fd() const { return event_fd_; }

 private:
  using Key = std::pair<uint64_t, int32_t>;  // request, index

  void merge(std::vector<StepOutput>& outputs);
  // waiting_.size(): nothing of its sequence waits.
  size_t find(const StepOutput& output);
  // All of it, or where memory fails nothing. Returns its place.
  size_t add(StepOutput& output, size_t likely_place);

  int event_fd_;
  std::mutex mutex_;  // guards all below
  std::condition_variable filled_;
  std::vector<StepOutput> waiting_;
  std::map<Key, size_t> places_;  // of the first ones in waiting_, as far as anybody asked
  bool left_some_ = false;        // with the engine, for want of memory
  bool closed_ = false;
};

}  // namespace turbomind
