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
  started_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::run(const Job& job) {
  next_ = 0;
  const bool shared = job.count > 1 && !threads_.empty();
  if (shared) {
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ++round_;
    }
    started_.notify_all();
  }
  take_tasks(job);
  std::unique_lock lock(mutex_);
  job_ = nullptr;
  done_.wait(lock, [&] { return num_busy_ == 0; });
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void WorkerPool::work() {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    started_.wait(lock, [&] { return stopping_ || (job_ != nullptr && round_ != seen); });
    if (stopping_) return;
    seen = round_;
    const Job& job = *job_;
    ++num_busy_;
    lock.unlock();
    take_tasks(job);
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
