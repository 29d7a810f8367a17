// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace turbomind {

// Threads that share the tasks of one job at a time with the thread that brings it. They sleep in between, and one that
// wakes up late is not waited for.
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
    begin({call, const_cast<void*>(static_cast<const void*>(std::addressof(task))), count}, count > 1);
    finish();
  }

  // As for_each, but the caller goes on to other things and takes part no sooner than in finish(), which must come
  // before the pool's next job and is what throws. Without threads of the pool's own all is done there.
  void start(size_t count, std::function<void(size_t)> task);
  void finish();

 private:
  struct Job {
    void (*call)(void* context, size_t index);
    void* context;
    size_t count;
  };

  void begin(const Job& job, bool shared);
  void work();
  // Takes tasks until there are none.
  void take_tasks(const Job& job);

  std::vector<std::thread> threads_;
  std::function<void(size_t)> started_task_;
  Job job_{};                    // changes only while no thread takes tasks
  std::atomic<size_t> next_{0};  // task of the job

  std::mutex mutex_;  // guards all below
  std::condition_variable opened_;
  std::condition_variable done_;
  bool open_ = false;  // threads may take the job's tasks
  uint64_t round_ = 0;
  size_t num_busy_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;
};

}  // namespace turbomind
