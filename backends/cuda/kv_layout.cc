// SPDX-License-Identifier: Apache-2.0
#include "kernels/kv_layout.h"

#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cuda {
namespace {

bool is_head_dim(int32_t dim) { return dim > 0 && dim <= kMaxHeadDim && dim % kHeadDimMultiple == 0; }

KvTile make_tile(int32_t rows, int32_t dim, int32_t element_size) {
  const int32_t row_bytes = dim * element_size;
  return {rows, row_bytes, element_size == 2 && row_bytes % kPanelBytes == 0};
}

}  // namespace

KvLayout make_kv_layout(const tm_kv_spec& spec) {
  abi::check_kv_spec(spec.block_size == 16 || spec.block_size == 32 || spec.block_size == 64, "block_size",
                     "16, 32 or 64", spec.block_size);
  abi::check_kv_spec(spec.dtype == TM_F32 || spec.dtype == TM_F16 || spec.dtype == TM_BF16 || spec.dtype == TM_I8,
                     "dtype", "float32, float16, bfloat16 or int8", spec.dtype);
  abi::check_kv_spec(spec.num_kv_heads > 0, "num_kv_heads", "a positive count", spec.num_kv_heads);
  abi::check_kv_spec(is_head_dim(spec.head_dim_k), "head_dim_k", "a multiple of 4 up to 256", spec.head_dim_k);
  abi::check_kv_spec(is_head_dim(spec.head_dim_v), "head_dim_v", "a multiple of 4 up to 256", spec.head_dim_v);
  KvLayout layout{};
  layout.num_heads = spec.num_kv_heads;
  layout.block_size = spec.block_size;
  layout.element_size = spec.dtype == TM_F32 ? 4 : spec.dtype == TM_I8 ? 1 : 2;
  layout.keys = make_tile(spec.block_size, spec.head_dim_k, layout.element_size);
  layout.values = make_tile(spec.block_size, spec.head_dim_v, layout.element_size);
  layout.value_offset = layout.keys.bytes();
  layout.scale_offset = layout.value_offset + layout.values.bytes();
  const int64_t scale_bytes = spec.dtype == TM_I8 ? 2 * spec.block_size * static_cast<int64_t>(sizeof(float)) : 0;
  layout.head_bytes = layout.scale_offset + scale_bytes;
  layout.block_bytes = layout.head_bytes * layout.num_heads;
  return layout;
}

}  // namespace turbomind::cuda
