// SPDX-License-Identifier: Apache-2.0
#include "kernels/kv.h"

#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr int kPiece = 64;  // elements converted at once

// out[i] = x[i] * factor, rounded to T.
template <class T>
TM_INLINE void convert_piece(const float* x, int count, Vec factor, T* out) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load(x + i) * factor);
  if (i < count) store(out + i, load(x + i, count - i) * factor, count - i);
}

TM_INLINE float largest_magnitude(const float* x, int count) {
  Vec largest = zero();
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) largest = max(abs(load(x + i)), largest);
  if (i < count) largest = max(abs(load(x + i, count - i)), largest);
  return max_lane(largest);
}

// Multiplies the elements before they are rounded: 1, or for int8 the inverse of the scale, which is stored.
template <class T>
TM_INLINE float store_factor(const float*, int, float*, int) {
  return 1.0f;
}
template <>
TM_INLINE float store_factor<int8_t>(const float* x, int count, float* scales, int token) {
  const float largest = largest_magnitude(x, count);
  scales[token] = largest * (1.0f / 127.0f);
  return largest > 1e-30f ? 127.0f / largest : 0.0f;  // below, the quotient would overflow
}

template <class T>
TM_INLINE void store_key(const float* key, int dim, Vec factor, T* out, int block_size) {
  alignas(64) T piece[kPiece];
  for (int d = 0; d < dim; d += kPiece) {
    const int count = dim - d < kPiece ? dim - d : kPiece;
    convert_piece(key + d, count, factor, piece);
    for (int i = 0; i < count; ++i) out[(d + i) * block_size] = piece[i];
  }
}

template <class T>
void store_tokens(const KvStore& task) {
  for (int t = 0; t < task.count; ++t) {
    const float* key = task.keys + t * task.key_stride;
    const float* value = task.values + t * task.value_stride;
    const float key_factor = store_factor<T>(key, task.dim_k, task.key_scales, t);
    store_key(key, task.dim_k, set(key_factor), static_cast<T*>(task.stored_keys) + t, task.block_size);
    const float value_factor = store_factor<T>(value, task.dim_v, task.value_scales, t);
    convert_piece(value, task.dim_v, set(value_factor),
                  static_cast<T*>(task.stored_values) + static_cast<int64_t>(t) * task.dim_v);
  }
}

}  // namespace

void fill(KvKernels& kernels) {
  kernels.store_f32 = store_tokens<float>;
  kernels.store_f16 = store_tokens<F16>;
  kernels.store_bf16 = store_tokens<Bf16>;
  kernels.store_int8 = store_tokens<int8_t>;
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
