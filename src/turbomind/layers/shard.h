// SPDX-License-Identifier: Apache-2.0
//
// What part of a whole one rank of tensor parallelism holds.
#pragma once

#include <cstdint>

#include "turbomind/core/error.h"

namespace turbomind {

// [begin, begin + count) along one axis.
struct Range {
  int64_t begin = 0;
  int64_t count = 0;

  int64_t end() const { return begin + count; }
};

inline Range whole(int64_t size) { return {0, size}; }

// This rank's equal share. what: the field named in the error. Throws kInvalidArgument if size does not divide.
inline Range equal_share(const char* what, int64_t size, int rank, int world_size) {
  check(size % world_size == 0, ErrorCode::kInvalidArgument, what, ": expected a multiple of tp = ", world_size,
        ", found ", size);
  const int64_t count = size / world_size;
  return {rank * count, count};
}

// As equal_share, but with fewer heads than ranks each rank holds one, and neighbours hold the same one.
inline Range kv_head_share(int64_t num_kv_heads, int rank, int world_size) {
  if (num_kv_heads >= world_size) return equal_share("num_kv_heads", num_kv_heads, rank, world_size);
  check(world_size % num_kv_heads == 0, ErrorCode::kInvalidArgument,
        "num_kv_heads: expected a divisor of tp = ", world_size, ", found ", num_kv_heads);
  return {rank / (world_size / num_kv_heads), 1};
}

}  // namespace turbomind
