// SPDX-License-Identifier: Apache-2.0
//
// Stores new keys and values of one head into their block.
#pragma once

#include <cstdint>

namespace turbomind::cpu {

// `count` tokens that follow one another inside one block.
struct KvStore {
  const float* keys;    // [count, dim_k], rows key_stride apart
  const float* values;  // [count, dim_v], rows value_stride apart
  int64_t key_stride;
  int64_t value_stride;
  int count;
  int dim_k;
  int dim_v;
  int block_size;
  void* stored_keys;    // of the first token in the head's [dim_k][block_size]
  void* stored_values;  // of the first token in the head's [block_size][dim_v]
  float* key_scales;    // of the first token; int8 only, as is the next
  float* value_scales;
};

using KvStoreFn = void (*)(const KvStore&);

struct KvKernels {
  KvStoreFn store_f32;
  KvStoreFn store_f16;
  KvStoreFn store_bf16;
  KvStoreFn store_int8;  // symmetric: code = round(x / scale), scale = largest magnitude / 127
};

}  // namespace turbomind::cpu
