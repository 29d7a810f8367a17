// SPDX-License-Identifier: Apache-2.0
//
// Shares rows out among the threads, or runs them on the caller where waking the pool would cost more than the work.
#pragma once

#include <algorithm>
#include <type_traits>

#include "thread_pool.h"

namespace turbomind::cpu {

inline constexpr int64_t kSerialCost = 16384;  // element operations, a few microseconds
inline constexpr int64_t kTaskCost = 4096;
inline constexpr int64_t kTasksPerThread = 4;  // evens out threads that run at different speeds

// Calls fn(begin, end) or fn(begin, end, thread) for ranges that cover [0, rows). cost: element operations of one row.
template <class Fn>
void for_row_ranges(ThreadPool& pool, int64_t rows, int64_t cost, Fn&& fn) {
  const auto call = [&](int64_t begin, int64_t end, int thread) {
    if constexpr (std::is_invocable_v<Fn&, int64_t, int64_t, int>) {
      fn(begin, end, thread);
    } else {
      static_cast<void>(thread);
      fn(begin, end);
    }
  };
  if (rows <= 0) return;
  if (rows * cost <= kSerialCost) return call(0, rows, 0);
  const int64_t wanted = pool.num_threads() * kTasksPerThread;
  const int64_t grain = std::max<int64_t>(1, kTaskCost / std::max<int64_t>(cost, 1));
  const int64_t length = std::max(grain, (rows + wanted - 1) / wanted);
  pool.parallel_for((rows + length - 1) / length, [&](int64_t task, int thread) {
    call(task * length, std::min(rows, (task + 1) * length), thread);
  });
}

}  // namespace turbomind::cpu
