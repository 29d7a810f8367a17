// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/queues.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace turbomind {

void SubmitQueue::submit(std::shared_ptr<const Request> request) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) throw *closed_;
    check(num_waiting_ < capacity_, ErrorCode::kQueueFull, "submit: expected fewer than max_queue_size = ", capacity_,
          " waiting requests, found ", num_waiting_);
    mail_.requests.push_back(std::move(request));
    ++num_waiting_;
    has_news_ = true;
  }
  filled_.notify_one();
}

void SubmitQueue::cancel(uint64_t request_id) {
  {
    const std::lock_guard lock(mutex_);
    if (mail_.closing == Closing::kCancel) return;
    mail_.cancelled.push_back(request_id);
    has_news_ = true;
  }
  filled_.notify_one();
}

void SubmitQueue::close(Closing closing, ErrorCode code, const std::string& message) {
  {
    const std::lock_guard lock(mutex_);
    mail_.closing = std::max(mail_.closing, closing);
    if (!closed_) closed_.emplace(code, message);
    has_news_ = true;
  }
  filled_.notify_one();
}

SubmitQueue::Mail SubmitQueue::take(std::optional<std::chrono::microseconds> patience) {
  std::unique_lock lock(mutex_);
  const auto has_news = [&] { return has_news_; };
  if (!patience) {
    filled_.wait(lock, has_news);
  } else if (patience->count() > 0) {
    filled_.wait_for(lock, *patience, has_news);
  }
  has_news_ = false;
  const Closing closing = mail_.closing;
  return std::exchange(mail_, Mail{.closing = closing});
}

void SubmitQueue::release_places(int64_t count) {
  if (count == 0) return;
  const std::lock_guard lock(mutex_);
  num_waiting_ -= count;
}

OutputQueue::OutputQueue() : event_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  check(event_fd_ >= 0, ErrorCode::kInternal, "eventfd: ", std::system_category().message(errno));
}

OutputQueue::~OutputQueue() { ::close(event_fd_); }

void OutputQueue::push(std::vector<StepOutput>& outputs) {
  if (outputs.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    // The usual case: the caller keeps up, and has left the memory of what it took. What memory did not suffice for
    // before may be of the same sequences as the rest.
    if (waiting_.empty() && !left_some_) {
      waiting_.swap(outputs);
    } else {
      merge(outputs);
    }
    // Only fails when the counter is at its limit, that is, readable.
    eventfd_write(event_fd_, 1);
  }
  filled_.notify_all();
}

void OutputQueue::merge(std::vector<StepOutput>& outputs) {
  size_t taken = 0;
  size_t place = 0;
  try {
    for (; taken < outputs.size(); ++taken) place = add(outputs[taken], place) + 1;
  } catch (...) {
    outputs.erase(outputs.begin(), outputs.begin() + static_cast<std::ptrdiff_t>(taken));
    left_some_ = true;
    throw;
  }
  outputs.clear();
  left_some_ = false;
}

size_t OutputQueue::add(StepOutput& output, size_t likely_place) {
  // Steps mostly hold the same sequences in the same order.
  size_t place = likely_place;
  if (place >= waiting_.size() || !waiting_[place].is_of(output)) place = find(output);
  if (place == waiting_.size()) {
    waiting_.push_back(std::move(output));
  } else {
    waiting_[place].merge(std::move(output));
  }
  return place;
}

size_t OutputQueue::find(const StepOutput& output) {
  while (places_.size() < waiting_.size()) {
    const size_t next = places_.size();
    places_.emplace(Key{waiting_[next].request_id(), waiting_[next].index()}, next);
  }
  const auto found = places_.find({output.request_id(), output.index()});
  return found == places_.end() ? waiting_.size() : found->second;
}

std::vector<Output> OutputQueue::poll(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  // An endless wait in milliseconds overflows in the clock's nanoseconds.
  timeout = std::min<std::chrono::milliseconds>(timeout, std::chrono::hours(24));
  filled_.wait_for(lock, timeout, [&] { return !waiting_.empty() || closed_; });
  std::vector<Output> outputs;
  outputs.reserve(waiting_.size());
  places_.clear();
  try {
    for (StepOutput& output : waiting_) outputs.push_back(output.take());
  } catch (...) {
    // What was taken is the caller's; the others wait for its next call.
    if (outputs.empty()) throw;
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(outputs.size()));
    return outputs;
  }
  waiting_.clear();
  eventfd_t ignored;
  eventfd_read(event_fd_, &ignored);
  return outputs;
}

void OutputQueue::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    eventfd_write(event_fd_, 1);
  }
  filled_.notify_all();
}

}  // namespace turbomind
