// SPDX-License-Identifier: Apache-2.0
#include "kernels/rope.h"

#include <algorithm>

#include "ops.h"
#include "ops/tensor_args.h"

namespace turbomind::cuda {
namespace {

void require_head_size(const tm_tensor& tensor, const char* argument) {
  require(
      tensor.shape[2] <= kMaxRopeHeadDim, argument,
      "heads of at most " + std::to_string(kMaxRopeHeadDim) + " elements, found " + std::to_string(tensor.shape[2]));
}

void require_rope(const tm_rope_args& args) {
  require_heads(args.q, args.q.dtype, "q");
  require_head_size(args.q, "q");
  if (given(args.k)) require_heads(args.k, args.q.dtype, "k");
  if (given(args.k)) require_head_size(args.k, "k");
  require_dtype(args.positions, TM_I32, "positions");
  require_matrix(args.cos_sin, TM_F32, "cos_sin");
  require(args.rotary_dim > 0 && args.rotary_dim % 2 == 0 && args.rotary_dim <= args.q.shape[2], "rotary_dim",
          "an even number of at most the head size");
  require(args.cos_sin.shape[1] == args.rotary_dim && (args.cos_sin.shape[0] > 0 || args.q.shape[0] == 0), "cos_sin",
          "[max_position, rotary_dim]");
  require(args.style == TM_ROPE_NEOX || args.style == TM_ROPE_INTERLEAVED, "style", "a tm_rope_style");
}

const Plan& require_kv_write(const tm_kv_write_args& args) {
  require_heads(args.k, args.k.dtype, "k");
  require_heads(args.v, args.k.dtype, "v");
  const Plan& plan = paged_plan_arg(args.plan, args.kv.spec);
  require(args.k.shape[1] == args.kv.spec.num_kv_heads && args.k.shape[2] == args.kv.spec.head_dim_k, "k",
          "the pool's heads");
  require(args.v.shape[1] == args.kv.spec.num_kv_heads && args.v.shape[2] == args.kv.spec.head_dim_v, "v",
          "the pool's heads");
  require(args.k.shape[0] >= plan.num_tokens() && args.k.shape[0] <= plan.limits().max_tokens, "k",
          "a row for each of the plan's");
  return plan;
}

}  // namespace

void CudaOps::rope(Stream& stream, const tm_rope_args& args, const tm_workspace&) {
  require_rope(args);
  launch_rope(stream.handle(), args);
}

void CudaOps::kv_write(Stream& stream, const tm_kv_write_args& args, const tm_workspace&) {
  launch_kv_write(stream.handle(), args, require_kv_write(args).view());
}

void CudaOps::qk_norm_rope_kv_write(Stream& stream, const tm_qk_norm_rope_kv_write_args& args, const tm_workspace&) {
  require_rope(args.rope);
  require_vector(args.q_norm_weight, TM_F32, "q_norm_weight");
  require_vector(args.k_norm_weight, TM_F32, "k_norm_weight");
  launch_qk_norm_rope_kv_write(stream.handle(), args, require_kv_write(args.kv_write).view());
}

}  // namespace turbomind::cuda
