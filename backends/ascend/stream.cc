// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include <algorithm>
#include <string>
#include <utility>

#include "check.h"
#include "library.h"
#include "plan.h"
#include "wait.h"

namespace turbomind::ascend {
namespace {

constexpr size_t kLeastScratch = size_t{8} << 20;

const Runtime& acl() { return library().runtime; }

// Waits may end before the work only where an abort then drops it: without, memory would go under what is queued.
bool may_give_up(const std::shared_ptr<const AbortFlag>& aborted) {
  return aborted && acl().aclrtStreamAbort && acl().aclrtSynchronizeStreamWithTimeout &&
         acl().aclrtSynchronizeEventWithTimeout;
}

}  // namespace

EventHandle::EventHandle() {
  check(acl().aclrtCreateEventExWithFlag(&handle_, kAclEventSync), "aclrtCreateEventExWithFlag");
}
EventHandle::~EventHandle() {
  if (handle_) acl().aclrtDestroyEvent(handle_);
}
void EventHandle::record(aclrtStream stream) const {
  check(acl().aclrtRecordEvent(handle_, stream), "aclrtRecordEvent");
}
void EventHandle::wait(aclrtStream stream) const {
  check(acl().aclrtStreamWaitEvent(stream, handle_), "aclrtStreamWaitEvent");
}
void EventHandle::synchronize() const { check(acl().aclrtSynchronizeEvent(handle_), "aclrtSynchronizeEvent"); }
void EventHandle::synchronize(const Context& context, const std::shared_ptr<const AbortFlag>& aborted) const {
  if (!may_give_up(aborted)) return synchronize();
  wait_in_slices(context, *aborted, "aclrtSynchronizeEvent",
                 [&](int32_t slice) { return acl().aclrtSynchronizeEventWithTimeout(handle_, slice); });
}
bool EventHandle::reached() const {
  int status = 0;
  check(acl().aclrtQueryEventStatus(handle_, &status), "aclrtQueryEventStatus");
  return status == kAclEventComplete;
}

Stream::Stream(Context& context) : context_(context) {
  context.set_thread();
  check(acl().aclrtCreateStream(handle_.get()), "aclrtCreateStream");
}

// Freeing memory does not wait for queued work, so the stream ends first. What was queued behind an abort may wait for
// what the abort dropped.
Stream::~Stream() {
  context_.set_thread_if_possible();
  if (num_aborts() > 0) abort();
  acl().aclrtSynchronizeStream(handle());
  acl().aclrtDestroyStream(handle());
}

void Stream::copy_async(void* dst, const void* src, size_t bytes, tm_copy_kind kind) {
  if (bytes == 0) return;
  constexpr int kKinds[] = {kAclHostToDevice, kAclDeviceToHost, kAclDeviceToDevice};
  require(kind >= TM_HOST_TO_DEVICE && kind <= TM_DEVICE_TO_DEVICE, "kind",
          "a tm_copy_kind, found " + std::to_string(kind));
  check(acl().aclrtMemcpyAsync(dst, bytes, src, bytes, kKinds[kind], handle()), "aclrtMemcpyAsync");
}

void Stream::memset_async(void* dst, int value, size_t bytes) {
  if (bytes > 0) check(acl().aclrtMemsetAsync(dst, bytes, value, bytes, handle()), "aclrtMemsetAsync");
}

void Stream::synchronize() {
  if (may_give_up(aborted_)) {
    wait_in_slices(context_, *aborted_, "aclrtSynchronizeStream",
                   [&](int32_t slice) { return acl().aclrtSynchronizeStreamWithTimeout(handle(), slice); });
  } else {
    check(acl().aclrtSynchronizeStream(handle()), "aclrtSynchronizeStream");
  }
  if (!capturing_) outgrown_.clear();
  abi::check_not_aborted(aborted_);
}

void Stream::drain() const noexcept { acl().aclrtSynchronizeStream(handle()); }

void Stream::abort() const noexcept {
  if (acl().aclrtStreamAbort) acl().aclrtStreamAbort(handle());
}

void Stream::capture_begin() {
  require_supported(has_graphs(acl()), "this CANN lacks some of the functions aclmdlRI... of graphs");
  check(acl().aclmdlRICaptureBegin(handle(), kAclCaptureThreadLocal), "aclmdlRICaptureBegin");
  capturing_ = true;
  groups_.clear();
}

std::unique_ptr<Graph> Stream::capture_end() {
  aclmdlRI graph = nullptr;
  capturing_ = false;
  check(acl().aclmdlRICaptureEnd(handle(), &graph), "aclmdlRICaptureEnd");
  return std::make_unique<Graph>(*this, graph);
}

void Stream::issue_with_lengths(std::function<void(Stream&)> issue) {
  if (!capturing_) return issue(*this);
  TaskGroup group{nullptr, std::move(issue)};
  check(acl().aclmdlRICaptureTaskGrpBegin(handle()), "aclmdlRICaptureTaskGrpBegin");
  try {
    group.issue(*this);
  } catch (...) {
    acl().aclmdlRICaptureTaskGrpEnd(handle(), &group.handle);
    throw;
  }
  check(acl().aclmdlRICaptureTaskGrpEnd(handle(), &group.handle), "aclmdlRICaptureTaskGrpEnd");
  groups_.push_back(std::move(group));
}

void* Stream::scratch(size_t bytes) {
  if (!scratch_ || scratch_->bytes() < bytes) {
    // Twice the size each time, so that what is outgrown never adds up to more than what is in use.
    const size_t grown = std::max({kLeastScratch, bytes, scratch_ ? 2 * scratch_->bytes() : 0});
    auto larger = std::make_shared<Memory>(TM_MEMORY_DEVICE, grown);
    if (scratch_) outgrown_.push_back(std::move(scratch_));
    scratch_ = std::move(larger);
  }
  return scratch_->data();
}

Graph::Graph(Stream& captured, aclmdlRI graph)
    : context_(captured.context()),
      graph_(graph),
      groups_(std::move(captured.groups_)),
      scratch_(captured.outgrown_),
      aborted_(captured.aborted()) {
  scratch_.push_back(captured.scratch_);
  if (groups_.empty()) return;
  try {
    updates_ = std::make_unique<Stream>(captured.context());
  } catch (...) {
    acl().aclmdlRIDestroy(graph_);
    throw;
  }
}

// What the graph's last update or replay still uses must not go before it. Of an aborted group's replay nothing is
// left, and updates that wait for its end would wait for ever.
Graph::~Graph() {
  context_.set_thread_if_possible();
  const bool aborted = is_set(aborted_);
  if (updates_ && aborted) updates_->abort();
  if (updates_) updates_->drain();
  if (launched_ && updates_ && !aborted) acl().aclrtSynchronizeEvent(replayed_.handle());
  acl().aclmdlRIDestroy(graph_);
}

// An update that was begun is ended in any case: the stream takes no other before.
void Graph::update(const TaskGroup& group) const {
  const aclrtStream updates = updates_->handle();
  check(acl().aclmdlRICaptureTaskUpdateBegin(updates, group.handle), "aclmdlRICaptureTaskUpdateBegin");
  try {
    group.issue(*updates_);
  } catch (...) {
    acl().aclmdlRICaptureTaskUpdateEnd(updates);
    throw;
  }
  check(acl().aclmdlRICaptureTaskUpdateEnd(updates), "aclmdlRICaptureTaskUpdateEnd");
}

void Graph::launch(Stream& stream, tm_plan* const* plans, int32_t num_plans) {
  abi::check_not_aborted(aborted_);
  for (int32_t i = 0; updates_ && i < num_plans; ++i) {
    if (!abi::as<Plan>(plans[i])->has_spans()) continue;
    throw abi::Error(TM_UNSUPPORTED, "graph: expected plans without spans, which its fused attention does not take");
  }
  if (updates_) {
    const aclrtStream updates = updates_->handle();
    if (launched_) replayed_.wait(updates);  // a replay in flight keeps its lengths
    for (const TaskGroup& group : groups_) update(group);
    updated_.record(updates);
    updated_.wait(stream.handle());
  }
  check(acl().aclmdlRIExecuteAsync(graph_, stream.handle()), "aclmdlRIExecuteAsync");
  if (updates_) replayed_.record(stream.handle());
  launched_ = true;
}

Event::Event(Context& context) : context_((context.set_thread(), context)) {}

Event::~Event() { context_.set_thread_if_possible(); }

void Event::record(Stream& stream) {
  handle_.record(stream.handle());
  recorded_ = true;
  if (aborted_ != stream.aborted()) aborted_ = stream.aborted();
}

// An event that was never recorded has nothing to wait for.
void Event::wait(Stream& stream) {
  if (recorded_) handle_.wait(stream.handle());
}

void Event::synchronize() {
  if (recorded_) handle_.synchronize(context_, aborted_);
  abi::check_not_aborted(aborted_);
}

bool Event::query() {
  const bool reached = !recorded_ || handle_.reached();
  abi::check_not_aborted(aborted_);
  return reached;
}

}  // namespace turbomind::ascend
