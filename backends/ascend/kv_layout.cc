// SPDX-License-Identifier: Apache-2.0
#include "kv_layout.h"

#include <algorithm>

#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::ascend {
namespace {

constexpr size_t kRegionAlignment = 512;

size_t region_bytes(int64_t num_blocks, int64_t heads, int64_t width, AclType type) {
  const int64_t bytes = (kSpareBlocks + num_blocks) * kBlockSize * heads * width * element_bytes(type);
  return (static_cast<size_t>(bytes) + kRegionAlignment - 1) / kRegionAlignment * kRegionAlignment;
}

// A part of the pool; without a pool, when memory is only counted, a view of nothing.
View part_of(const tm_kv_pool& pool, size_t at, AclType type, int64_t heads, int64_t width) {
  std::byte* data = pool.data ? static_cast<std::byte*>(pool.data) + at : nullptr;
  return make_view(data, type, {kSpareBlocks + pool.num_blocks, kBlockSize, heads, width});
}

}  // namespace

size_t KvLayout::scales_at(int64_t num_blocks) const {
  return region_bytes(num_blocks, heads, width_k, type) + region_bytes(num_blocks, heads, width_v, type);
}

size_t KvLayout::bytes(int64_t num_blocks) const {
  const size_t scales = has_scales() ? 2 * region_bytes(num_blocks, heads, 1, kAclFloat) : 0;
  return scales_at(num_blocks) + scales;
}

View KvLayout::keys(const tm_kv_pool& pool) const { return part_of(pool, 0, type, heads, width_k); }

View KvLayout::values(const tm_kv_pool& pool) const {
  return part_of(pool, region_bytes(pool.num_blocks, heads, width_k, type), type, heads, width_v);
}

View KvLayout::key_scales(const tm_kv_pool& pool) const {
  return part_of(pool, scales_at(pool.num_blocks), kAclFloat, heads, 1);
}

View KvLayout::value_scales(const tm_kv_pool& pool) const {
  const size_t at = scales_at(pool.num_blocks) + region_bytes(pool.num_blocks, heads, 1, kAclFloat);
  return part_of(pool, at, kAclFloat, heads, 1);
}

KvLayout make_kv_layout(const Profile& profile, const tm_kv_spec& spec) {
  abi::check_kv_spec(spec.block_size == kBlockSize, "block_size", "128", spec.block_size);
  const bool offered = spec.dtype == TM_F32 || spec.dtype == TM_F16 || spec.dtype == TM_BF16 || spec.dtype == TM_I8;
  abi::check_kv_spec(offered, "dtype", "float32, float16, bfloat16 or int8", spec.dtype);
  abi::check_kv_spec(spec.num_kv_heads > 0, "num_kv_heads", "a positive count", spec.num_kv_heads);
  constexpr int32_t kMaxHeadDim = 512;
  abi::check_kv_spec(spec.head_dim_k > 0 && spec.head_dim_k <= kMaxHeadDim, "head_dim_k", "1 to 512", spec.head_dim_k);
  abi::check_kv_spec(spec.head_dim_v > 0 && spec.head_dim_v <= kMaxHeadDim, "head_dim_v", "1 to 512", spec.head_dim_v);
  KvLayout layout{acl_type(spec.dtype), spec.num_kv_heads, spec.head_dim_k,
                  spec.head_dim_v,      spec.head_dim_k,   spec.head_dim_v};
  const int32_t padded = padded_head_dim(profile, std::max(spec.head_dim_k, spec.head_dim_v));
  const bool is_half = spec.dtype == TM_F16 || spec.dtype == TM_BF16;
  if (is_half && padded > 0) layout.width_k = layout.width_v = padded;
  return layout;
}

}  // namespace turbomind::ascend
