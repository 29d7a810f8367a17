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

void OutputQueue::push(std::vector<Output>& outputs) {
  if (outputs.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    size_t taken = 0;
    try {
      for (; taken < outputs.size(); ++taken) add(outputs[taken]);
    } catch (...) {
      outputs.erase(outputs.begin(), outputs.begin() + static_cast<std::ptrdiff_t>(taken));
      throw;
    }
    outputs.clear();
    // Only fails when the counter is at its limit, that is, readable.
    eventfd_write(event_fd_, 1);
  }
  filled_.notify_all();
}

void OutputQueue::add(Output& output) {
  const auto [place, inserted] = places_.try_emplace({output.request_id, output.index}, waiting_.size());
  if (!inserted) return waiting_[place->second].merge(std::move(output));
  try {
    waiting_.push_back(std::move(output));
  } catch (...) {
    places_.erase(place);
    throw;
  }
}

std::vector<Output> OutputQueue::poll(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  // An endless wait in milliseconds overflows in the clock's nanoseconds.
  timeout = std::min<std::chrono::milliseconds>(timeout, std::chrono::hours(24));
  filled_.wait_for(lock, timeout, [&] { return !waiting_.empty() || closed_; });
  eventfd_t ignored;
  eventfd_read(event_fd_, &ignored);
  places_.clear();
  return std::exchange(waiting_, {});
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
