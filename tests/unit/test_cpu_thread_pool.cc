// SPDX-License-Identifier: Apache-2.0
#include <sched.h>

#include <atomic>
#include <thread>
#include <vector>

#include "support/test.h"
#include "thread_pool.h"

namespace turbomind::cpu {
namespace {

using std::chrono::microseconds;

// Runs `jobs` parallel_for calls of many sizes and expects each task to be run once.
void expect_every_task_once(ThreadPool& pool, int jobs) {
  for (int job = 0; job < jobs; ++job) {
    const int64_t num_tasks = job % 97;
    std::vector<std::atomic<int>> runs(static_cast<size_t>(num_tasks));
    pool.parallel_for(num_tasks, [&](int64_t task, int thread) {
      EXPECT(thread >= 0 && thread < pool.num_threads());
      runs[static_cast<size_t>(task)].fetch_add(1);
    });
    for (const std::atomic<int>& count : runs) EXPECT_EQ(count.load(), 1);
  }
}

TEST(thread_pool_runs_every_task_once) {
  for (const int num_threads : {1, 2, 5}) {
    ThreadPool spinning(num_threads, {}, microseconds(1000));
    expect_every_task_once(spinning, 500);
  }
}

TEST(thread_pool_wakes_sleeping_workers) {
  ThreadPool pool(3, {}, microseconds(0));
  expect_every_task_once(pool, 200);
  // Both tasks wait for the other: they end only if a worker woke up.
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::atomic<int> arrived{0};
  pool.parallel_for(2, [&](int64_t) {
    arrived.fetch_add(1);
    while (arrived.load() < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived.load(), 2);
}

// CPUs that the calling thread may run on.
std::vector<int> affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

TEST(thread_pool_pins_its_workers_only) {
  const std::vector<int> all = affinity();
  ThreadPool pool(2, {all.front(), all.back()}, microseconds(50));
  std::vector<int> of_thread[2];
  std::atomic<int> arrived{0};
  pool.parallel_for(2, [&](int64_t, int thread) {  // one task each: they end only together
    of_thread[thread] = affinity();
    arrived.fetch_add(1);
    while (arrived.load() < 2) std::this_thread::yield();
  });
  EXPECT(of_thread[0] == all);
  EXPECT(of_thread[1] == std::vector<int>{all.back()});
}

TEST(thread_pool_serves_concurrent_callers) {
  ThreadPool pool(2, {}, microseconds(50));
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) callers.emplace_back([&] { expect_every_task_once(pool, 200); });
  for (std::thread& caller : callers) caller.join();
}

TEST(thread_pool_ranges_cover_the_count) {
  ThreadPool pool(3, {}, microseconds(50));
  for (const int64_t count : {0, 1, 5, 64, 1000}) {
    std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
    pool.parallel_ranges(count, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) seen[static_cast<size_t>(i)].fetch_add(1);
    });
    for (const std::atomic<int>& count_seen : seen) EXPECT_EQ(count_seen.load(), 1);
  }
}

}  // namespace
}  // namespace turbomind::cpu
