// SPDX-License-Identifier: Apache-2.0
//
// Shares rows out among the threads, or runs them on the caller where waking the pool would cost more than the work.
#pragma once

#include <algorithm>

#include "thread_pool.h"

namespace turbomind::cpu {

inline constexpr int64_t kSerialCost = 16384;  // element operations, a few microseconds
inline constexpr int64_t kTaskCost = 4096;

// Calls fn(begin, end) for ranges that cover [0, rows). cost: element operations of one row.
template <class Fn>
void for_row_ranges(ThreadPool& pool, int64_t rows, int64_t cost, Fn&& fn) {
  if (rows <= 0) return;
  if (rows * cost <= kSerialCost) return fn(int64_t{0}, rows);
  pool.parallel_ranges(rows, std::max<int64_t>(1, kTaskCost / std::max<int64_t>(cost, 1)), fn);
}

}  // namespace turbomind::cpu
