// SPDX-License-Identifier: Apache-2.0
//
// A fixed set of workers that share the tasks of one parallel_for at a time with the calling thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace turbomind::cpu {

class ThreadPool {
 public:
  // num_threads counts the caller: num_threads - 1 workers are started. Worker i is pinned to cpus[i] (cpus[0] belongs
  // to the caller, which is left alone); an empty list pins nobody. An idle worker spins for `spin`, then sleeps.
  ThreadPool(int num_threads, const std::vector<int>& cpus, std::chrono::microseconds spin);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls fn(task) or fn(task, thread), thread in [0, num_threads), once for each task in [0, num_tasks); returns when
  // all are done. Which thread runs a task is not defined: a result must not depend on it. fn must not throw, and must
  // not call parallel_for. Concurrent callers are served: one gets the workers, the others run their tasks themselves.
  template <class Fn>
  void parallel_for(int64_t num_tasks, Fn&& fn) {
    const auto call = [](void* context, int64_t task, int thread) {
      auto& function = *static_cast<std::remove_reference_t<Fn>*>(context);
      if constexpr (std::is_invocable_v<Fn&, int64_t, int>) {
        function(task, thread);
      } else {
        static_cast<void>(thread);
        function(task);
      }
    };
    run(num_tasks, call, const_cast<void*>(static_cast<const void*>(&fn)));
  }

  // Cuts [0, count) into ranges of at least `grain` (the last one may be shorter) and calls fn(begin, end) for each.
  template <class Fn>
  void parallel_ranges(int64_t count, int64_t grain, Fn&& fn) {
    const int64_t wanted = static_cast<int64_t>(num_threads_) * kRangesPerThread;
    const int64_t length = std::max(std::max<int64_t>(grain, 1), (count + wanted - 1) / wanted);
    parallel_for((count + length - 1) / length,
                 [&](int64_t task) { fn(task * length, std::min(count, (task + 1) * length)); });
  }

 private:
  using TaskFn = void (*)(void* context, int64_t task, int thread);

  static constexpr int64_t kRangesPerThread = 4;  // evens out threads that run at different speeds

  void run(int64_t num_tasks, TaskFn fn, void* context);
  void run_shared(int64_t num_tasks, TaskFn fn, void* context);
  bool run_one_task(int thread);
  void worker_loop(int thread);
  bool wait_for_tasks();

  const int num_threads_;
  const std::chrono::microseconds spin_;
  std::mutex caller_mutex_;
  std::vector<std::thread> workers_;

  // The job. Written by the caller before ticket_ is published; stable until done_ reaches the number of tasks.
  TaskFn fn_ = nullptr;
  void* context_ = nullptr;

  // job number | number of tasks | next task. Claiming is one fetch_add, so a worker that is late or asleep is never
  // waited for: only claimed tasks are.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<uint64_t> done_{0};
  alignas(64) std::atomic<uint32_t> wake_{0};  // bumped to wake sleepers
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace turbomind::cpu
