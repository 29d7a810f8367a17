// SPDX-License-Identifier: Apache-2.0
#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>

namespace turbomind::cpu {
namespace {

constexpr int kTaskBits = 22;  // next task may run past the number of tasks by one per thread
constexpr int64_t kMaxTasks = int64_t{1} << 20;
constexpr uint64_t kTaskMask = (uint64_t{1} << kTaskBits) - 1;
constexpr int kSpinsPerClockRead = 64;
constexpr int kSpinsBeforeYield = 4096;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

bool has_open_task(uint64_t ticket) { return (ticket & kTaskMask) < ((ticket >> kTaskBits) & kTaskMask); }

void pin_this_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);  // best effort: the mask may have shrunk meanwhile
}

}  // namespace

ThreadPool::ThreadPool(int num_threads, const std::vector<int>& cpus, std::chrono::microseconds spin)
    : num_threads_(std::max(1, num_threads)), spin_(spin) {
  for (int thread = 1; thread < num_threads_; ++thread) {
    const int cpu = cpus.empty() ? -1 : cpus[static_cast<size_t>(thread) % cpus.size()];
    workers_.emplace_back([this, thread, cpu] {
      if (cpu >= 0) pin_this_thread(cpu);
      worker_loop(thread);
    });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  wake_.fetch_add(1);
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t num_tasks, TaskFn fn, void* context) {
  if (num_tasks > 1 && num_threads_ > 1 && num_tasks <= kMaxTasks) {
    const std::unique_lock lock(caller_mutex_, std::try_to_lock);
    if (lock.owns_lock()) return run_shared(num_tasks, fn, context);
  }
  for (int64_t task = 0; task < num_tasks; ++task) fn(context, task, 0);
}

void ThreadPool::run_shared(int64_t num_tasks, TaskFn fn, void* context) {
  fn_ = fn;
  context_ = context;
  done_.store(0, std::memory_order_relaxed);
  const uint64_t job = (ticket_.load(std::memory_order_relaxed) >> (2 * kTaskBits)) + 1;
  // seq_cst pairs with wait_for_tasks(): either this thread sees the sleeper or the sleeper sees the ticket.
  ticket_.store((job << (2 * kTaskBits)) | (static_cast<uint64_t>(num_tasks) << kTaskBits));
  if (sleepers_.load() > 0) {
    wake_.fetch_add(1);
    wake_.notify_all();
  }
  while (run_one_task(0)) {
  }
  for (int spins = 0; done_.load(std::memory_order_acquire) != static_cast<uint64_t>(num_tasks); ++spins) {
    if (spins < kSpinsBeforeYield) {
      pause_cpu();
    } else {
      sched_yield();
    }
  }
}

bool ThreadPool::run_one_task(int thread) {
  if (!has_open_task(ticket_.load(std::memory_order_relaxed))) return false;
  const uint64_t claimed = ticket_.fetch_add(1, std::memory_order_acquire);
  if (!has_open_task(claimed)) return false;
  fn_(context_, static_cast<int64_t>(claimed & kTaskMask), thread);
  done_.fetch_add(1, std::memory_order_release);
  return true;
}

void ThreadPool::worker_loop(int thread) {
  while (wait_for_tasks()) {
    while (run_one_task(thread)) {
    }
  }
}

// Returns true when there may be a task, false when the pool stops.
bool ThreadPool::wait_for_tasks() {
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int spins = 0; spins < kSpinsPerClockRead; ++spins) {
      if (has_open_task(ticket_.load(std::memory_order_relaxed))) return true;
      pause_cpu();
    }
    if (stopping_.load(std::memory_order_relaxed)) return false;
  } while (std::chrono::steady_clock::now() - start < spin_);

  const uint32_t seen = wake_.load();
  sleepers_.fetch_add(1);
  while (!has_open_task(ticket_.load()) && !stopping_.load() && wake_.load() == seen) wake_.wait(seen);
  sleepers_.fetch_sub(1);
  return !stopping_.load();
}

}  // namespace turbomind::cpu
