// SPDX-License-Identifier: Apache-2.0
#include "turbomind/core/worker_pool.h"

#include <utility>

namespace turbomind {

WorkerPool::WorkerPool(size_t num_threads) {
  threads_.reserve(num_threads);
  try {
    for (size_t i = 1; i < num_threads; ++i) threads_.emplace_back([this] { work(); });
  } catch (const std::exception&) {
    // The caller does the work of threads that are not to be had.
  }
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  opened_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::start(size_t count, std::function<void(size_t)> task) {
  started_task_ = std::move(task);
  const auto call = [](void* context, size_t index) { (*static_cast<std::function<void(size_t)>*>(context))(index); };
  begin({call, &started_task_, count}, count > 0);
}

void WorkerPool::begin(const Job& job, bool shared) {
  job_ = job;
  next_ = 0;
  if (!shared || threads_.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    open_ = true;
    ++round_;
  }
  opened_.notify_all();
}

void WorkerPool::finish() {
  take_tasks(job_);
  std::unique_lock lock(mutex_);
  open_ = false;
  done_.wait(lock, [&] { return num_busy_ == 0; });
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void WorkerPool::work() {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    opened_.wait(lock, [&] { return stopping_ || (open_ && round_ != seen); });
    if (stopping_) return;
    seen = round_;
    ++num_busy_;
    lock.unlock();
    take_tasks(job_);
    lock.lock();
    if (--num_busy_ == 0) done_.notify_one();
  }
}

void WorkerPool::take_tasks(const Job& job) {
  try {
    for (size_t i = next_++; i < job.count; i = next_++) job.call(job.context, i);
  } catch (...) {
    next_ = job.count;
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

}  // namespace turbomind
