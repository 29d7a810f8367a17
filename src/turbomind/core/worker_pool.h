// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace turbomind {

// Threads that share the tasks of one for_each() at a time with the thread that calls it. They sleep in between, and
// one that wakes up late is not waited for.
class WorkerPool {
 public:
  // num_threads counts the caller, so 1 starts none.
  explicit WorkerPool(size_t num_threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Calls task(i) once for each i in [0, count), in no order; returns when all are done. If tasks throw, those not yet
  // begun are left out and the exception that came first is thrown.
  template <class Task>
  void for_each(size_t count, Task&& task) {
    const auto call = [](void* context, size_t index) {
      (*static_cast<std::remove_reference_t<Task>*>(context))(index);
    };
    run({call, const_cast<void*>(static_cast<const void*>(std::addressof(task))), count});
  }

 private:
  struct Job {
    void (*call)(void* context, size_t index);
    void* context;
    size_t count;
  };

  void run(const Job& job);
  void work();
  // Takes tasks until there are none.
  void take_tasks(const Job& job);

  std::vector<std::thread> threads_;
  std::atomic<size_t> next_{0};  // task of the job

  std::mutex mutex_;  // guards all below
  std::condition_variable started_;
  std::condition_variable done_;
  const Job* job_ = nullptr;  // open to workers
  uint64_t round_ = 0;
  size_t num_busy_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;
};

}  // namespace turbomind
