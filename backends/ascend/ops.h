// SPDX-License-Identifier: Apache-2.0
//
// Every op this backend offers. Each is one function of compose(): it issues aclnn operators through a Launch or, when
// the Launch counts, says by that how much scratch memory it wants.
#pragma once

#include "launch.h"
#include "plan.h"
#include "stream.h"
#include "weight.h"

// clang-format off
#define TM_ASCEND_OPS(X)                                                                                  \
  X(embedding) X(rms_norm) X(layer_norm) X(activation) X(gated_activation) X(add) X(cast) X(linear)       \
  X(grouped_linear) X(rope) X(kv_write) X(attention) X(attention_dense) X(kv_copy_blocks) X(gather_rows)  \
  X(scatter_rows) X(moe_route) X(moe_permute) X(moe_combine) X(logits_process) X(sample) X(logprobs)      \
  X(add_rms_norm) X(softcap)
// clang-format on

namespace turbomind::ascend {

#define TM_ASCEND_DECLARE(name) void compose(Launch& launch, const tm_##name##_args& args);
TM_ASCEND_OPS(TM_ASCEND_DECLARE)
#undef TM_ASCEND_DECLARE

struct AscendOps {
#define TM_ASCEND_SLOT(name)                                                                      \
  static void name(Stream& stream, const tm_##name##_args& args, const tm_workspace& workspace) { \
    Launch launch(stream, workspace);                                                             \
    compose(launch, args);                                                                        \
  }
  TM_ASCEND_OPS(TM_ASCEND_SLOT)
#undef TM_ASCEND_SLOT
  static void kv_export(Stream& stream, const tm_kv_pool& pool, const int32_t* ids, int64_t count, void* dst);
  static void kv_import(Stream& stream, const tm_kv_pool& pool, const int32_t* ids, int64_t count, const void* src);
};

// ---- pieces that several ops share ----

// out = activation(x); the same shape and dtype; out may be x.
void activate(Launch& launch, const View& x, tm_activation_kind kind, const View& out);

inline bool given(const tm_tensor& tensor) { return tensor.data != nullptr; }
inline bool is_16_bit(AclType type) { return type == kAclFloat16 || type == kAclBf16; }

// A view that an operator which wants contiguous memory takes: itself or a copy.
View contiguous_copy(Launch& launch, const View& view);

inline const Plan& plan_arg(const tm_plan* handle) {
  require(handle != nullptr, "plan", "a plan");
  return *abi::as<const Plan>(handle);
}
const Plan& paged_plan_arg(const tm_plan* handle, const tm_kv_spec& spec);

// ---- argument checks ----

inline void require_dtype(const tm_tensor& tensor, tm_dtype dtype, const char* argument) {
  require(tensor.dtype == dtype, argument,
          "dtype " + std::to_string(dtype) + ", found " + std::to_string(tensor.dtype));
}
inline void require_float(const tm_tensor& tensor, const char* argument) {
  require(tensor.dtype == TM_F32 || tensor.dtype == TM_F16 || tensor.dtype == TM_BF16, argument,
          "float32, float16 or bfloat16, found dtype " + std::to_string(tensor.dtype));
}
inline void require_rank(const tm_tensor& tensor, int32_t rank, const char* argument) {
  require(tensor.ndim == rank, argument, std::to_string(rank) + " dimensions, found " + std::to_string(tensor.ndim));
}

}  // namespace turbomind::ascend
