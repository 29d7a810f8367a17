// SPDX-License-Identifier: Apache-2.0
//
// Where one kv head's bytes lie in a pool. A block holds its heads one after another; a head holds K transposed,
// [head_dim_k, block_size], so that scores vectorise over positions, then V, [block_size, head_dim_v], then for int8
// the scales of K and of V, f32 [block_size] each.
#pragma once

#include "dtype.h"
#include "kernels/attention.h"
#include "plan.h"

namespace turbomind::cpu {

inline KvHeadView kv_head_view(const tm_kv_pool& pool, int64_t head) {
  const tm_kv_spec& spec = pool.spec;
  const int64_t element = static_cast<int64_t>(dtype_bytes(spec.dtype));
  const int64_t k_bytes = element * spec.head_dim_k * spec.block_size;
  const int64_t v_bytes = element * spec.head_dim_v * spec.block_size;
  const int64_t scale_bytes = spec.dtype == TM_I8 ? 2 * spec.block_size * static_cast<int64_t>(sizeof(float)) : 0;
  const int64_t head_bytes = k_bytes + v_bytes + scale_bytes;
  return {.pool = static_cast<const uint8_t*>(pool.data) + head * head_bytes,
          .block_table = nullptr,
          .block_bytes = head_bytes * spec.num_kv_heads,
          .v_offset = k_bytes,
          .scale_offset = k_bytes + v_bytes,
          .block_size = spec.block_size,
          .dim_k = spec.head_dim_k,
          .dim_v = spec.head_dim_v,
          .dtype = spec.dtype};
}

}  // namespace turbomind::cpu
