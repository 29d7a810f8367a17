// SPDX-License-Identifier: Apache-2.0
#include "kv_layout.h"

#include "dtype.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cpu {

size_t kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) {
  if (spec.block_size != 16 && spec.block_size != 32 && spec.block_size != 64) {
    throw abi::Error(TM_UNSUPPORTED, "kv block_size: expected 16, 32 or 64, found " + std::to_string(spec.block_size));
  }
  const size_t per_head = static_cast<size_t>(spec.head_dim_k + spec.head_dim_v) * dtype_bytes(spec.dtype) +
                          (spec.dtype == TM_I8 ? 2 * sizeof(float) : 0);
  return static_cast<size_t>(num_blocks) * spec.block_size * spec.num_kv_heads * per_head;
}

}  // namespace turbomind::cpu
