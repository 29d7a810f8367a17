// SPDX-License-Identifier: Apache-2.0
//
// Where the bytes of a KV pool lie. Block by block, inside a block head by head; one head of one block is
//
//   keys    [head_dim_k][block_size]   transposed: a query meets a vector of positions without horizontal sums
//   values  [block_size][head_dim_v]
//   scales  f32, keys' [block_size] then values' [block_size]; TM_I8 only
#pragma once

#include <cstddef>
#include <cstdint>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cpu {

struct KvLayout {
  // Throws abi::Error (TM_UNSUPPORTED) for a spec this backend does not offer.
  explicit KvLayout(const tm_kv_spec& spec);

  int64_t num_heads;
  int64_t block_size;    // tokens
  int64_t element_size;  // bytes, as all below
  int64_t value_offset;  // from the head's first byte
  int64_t scale_offset;
  int64_t head_bytes;
  int64_t block_bytes;

  std::byte* head(const tm_kv_pool& pool, int64_t block, int64_t head) const {
    return static_cast<std::byte*>(pool.data) + block * block_bytes + head * head_bytes;
  }
};

// Bytes of a pool of num_blocks. Throws abi::Error (TM_UNSUPPORTED) for a spec this backend does not offer.
size_t kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks);

}  // namespace turbomind::cpu
