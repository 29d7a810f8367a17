// SPDX-License-Identifier: Apache-2.0
//
// Where a layer's KV pool lies: keys, then values, each [spare + blocks, block_size, heads, dim]. Spare places come
// first: padding rows of a captured step are written there, each to a place of its own. 16-bit heads are padded with
// zeros to a size that the fused attention takes. Behind int8 codes lie the scales of keys, then of values, a float32
// for each head of a place.
#pragma once

#include <cstddef>
#include <cstdint>

#include "profile.h"
#include "view.h"

namespace turbomind::ascend {

inline constexpr int32_t kBlockSize = 128;  // the one size that every layout of the fused attention takes
inline constexpr int64_t kSpareBlocks = 4;
inline constexpr int64_t kSparePlaces = kSpareBlocks * kBlockSize;

struct KvLayout {
  AclType type;
  int64_t heads;
  int64_t dim_k;  // of the model
  int64_t dim_v;
  int64_t width_k;  // of a head in memory
  int64_t width_v;

  bool has_scales() const { return type == kAclInt8; }
  size_t bytes(int64_t num_blocks) const;
  // [spare + blocks, block_size, heads, width]
  View keys(const tm_kv_pool& pool) const;
  View values(const tm_kv_pool& pool) const;
  // f32 [spare + blocks, block_size, heads, 1]; only with has_scales().
  View key_scales(const tm_kv_pool& pool) const;
  View value_scales(const tm_kv_pool& pool) const;

 private:
  size_t scales_at(int64_t num_blocks) const;
};

// Throws abi::Error (TM_UNSUPPORTED) for a spec this backend does not offer.
KvLayout make_kv_layout(const Profile& profile, const tm_kv_spec& spec);

}  // namespace turbomind::ascend
