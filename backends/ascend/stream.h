// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "acl/types.h"
#include "context.h"
#include "executors.h"
#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::ascend {

class Graph;
class Stream;

using abi::AbortFlag;

inline bool is_set(const std::shared_ptr<const AbortFlag>& flag) { return flag && *flag; }

// An event of ACL that destroys itself.
class EventHandle {
 public:
  EventHandle();
  ~EventHandle();
  EventHandle(EventHandle&& other) noexcept : handle_(other.handle_) { other.handle_ = nullptr; }
  EventHandle& operator=(EventHandle&&) = delete;

  void record(aclrtStream stream) const;
  void wait(aclrtStream stream) const;  // the stream waits
  void synchronize() const;
  // The same of an event on a stream that watches a group of ranks (null: none). Throws as wait_in_slices.
  void synchronize(const Context& context, const std::shared_ptr<const AbortFlag>& aborted) const;
  bool reached() const;
  aclrtEvent handle() const { return handle_; }

 private:
  aclrtEvent handle_ = nullptr;
};

// Operators of a captured step whose host arguments change from replay to replay.
struct TaskGroup {
  aclrtTaskGrp handle;
  std::function<void(Stream&)> issue;  // the same operators again, with the plan's present lengths
};

class Stream {
 public:
  explicit Stream(Context& context);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Context& context() const { return context_; }
  aclrtStream handle() const { return *handle_; }
  // For who must not outlive the stream.
  std::weak_ptr<const aclrtStream> shared_handle() const { return handle_; }
  bool capturing() const { return capturing_; }

  void copy_async(void* dst, const void* src, size_t bytes, tm_copy_kind kind);
  void memset_async(void* dst, int value, size_t bytes);
  void synchronize();
  // Waits for what is queued, whatever came of it.
  void drain() const noexcept;
  // Drops what is queued, where CANN can.
  void abort() const noexcept;
  void capture_begin();
  std::unique_ptr<Graph> capture_end();

  // Issues operators that read host lengths: in a capture as a task group that each replay updates.
  void issue_with_lengths(std::function<void(Stream&)> issue);

  // Operators that were prepared for this stream.
  Executors& executors() { return executors_; }

  // Scratch memory of the operators on this stream: at least so many bytes. It grows; what it grew out of lives on
  // until nothing queued or captured can use it.
  void* scratch(size_t bytes);

  // From now on, waits for this stream's work throw abi::Error (TM_DEVICE_ERROR) once the flag is set. One group of
  // ranks per stream: the last one counts.
  void watch(const std::shared_ptr<const AbortFlag>& aborted) {
    if (aborted_ == aborted) return;
    past_aborts_ = num_aborts();
    aborted_ = aborted;
  }
  const std::shared_ptr<const AbortFlag>& aborted() const { return aborted_; }
  // Aborted groups that this stream watched. Events recorded before the last of them may never be reached.
  int64_t num_aborts() const { return past_aborts_ + (is_set(aborted_) ? 1 : 0); }

 private:
  friend class Graph;

  Context& context_;
  std::shared_ptr<aclrtStream> handle_ = std::make_shared<aclrtStream>(nullptr);
  bool capturing_ = false;
  std::vector<TaskGroup> groups_;
  Executors executors_;
  std::shared_ptr<Memory> scratch_;
  std::vector<std::shared_ptr<Memory>> outgrown_;
  std::shared_ptr<const AbortFlag> aborted_;
  int64_t past_aborts_ = 0;  // of groups watched before
};

// A captured step. Most of what changes between replays lies in the plans' device memory; lengths that operators read
// on the host are put in by updates of their task groups, on a stream of their own.
class Graph {
 public:
  Graph(Stream& captured, aclmdlRI graph);  // takes the graph
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Throws abi::Error (TM_DEVICE_ERROR) once the group of ranks whose collectives it holds was aborted.
  void launch(Stream& stream, tm_plan* const* plans, int32_t num_plans);

 private:
  void update(const TaskGroup& group) const;

  Context& context_;
  aclmdlRI graph_;
  std::vector<TaskGroup> groups_;
  std::vector<std::shared_ptr<Memory>> scratch_;  // what the captured operators use
  std::unique_ptr<Stream> updates_;
  EventHandle updated_;
  EventHandle replayed_;
  std::shared_ptr<const AbortFlag> aborted_;  // of the stream that was captured
  bool launched_ = false;
};

class Event {
 public:
  explicit Event(Context& context);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(Stream& stream);
  void wait(Stream& stream);
  void synchronize();
  bool query();

 private:
  Context& context_;
  EventHandle handle_;
  bool recorded_ = false;
  std::shared_ptr<const AbortFlag> aborted_;  // of the stream that recorded it
};

}  // namespace turbomind::ascend
