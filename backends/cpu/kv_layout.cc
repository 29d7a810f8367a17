// SPDX-License-Identifier: Apache-2.0
#include "kv_layout.h"

#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cpu {

KvLayout::KvLayout(const tm_kv_spec& spec) {
  abi::check_kv_spec(spec.block_size == 16 || spec.block_size == 32 || spec.block_size == 64, "block_size",
                     "16, 32 or 64", spec.block_size);
  abi::check_kv_spec(spec.dtype == TM_F32 || spec.dtype == TM_F16 || spec.dtype == TM_BF16 || spec.dtype == TM_I8,
                     "dtype", "float32, float16, bfloat16 or int8", spec.dtype);
  abi::check_kv_spec(spec.num_kv_heads > 0, "num_kv_heads", "a positive count", spec.num_kv_heads);
  abi::check_kv_spec(spec.head_dim_k > 0, "head_dim_k", "a positive size", spec.head_dim_k);
  abi::check_kv_spec(spec.head_dim_v > 0, "head_dim_v", "a positive size", spec.head_dim_v);
  num_heads = spec.num_kv_heads;
  block_size = spec.block_size;
  element_size = abi::dtype_bytes(spec.dtype);
  value_offset = spec.head_dim_k * block_size * element_size;
  scale_offset = value_offset + spec.head_dim_v * block_size * element_size;
  head_bytes = scale_offset + (spec.dtype == TM_I8 ? 2 * block_size * static_cast<int64_t>(sizeof(float)) : 0);
  block_bytes = head_bytes * num_heads;
}

size_t kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) {
  return static_cast<size_t>(num_blocks * KvLayout(spec).block_bytes);
}

}  // namespace turbomind::cpu
