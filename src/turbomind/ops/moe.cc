// SPDX-License-Identifier: Apache-2.0
#include "turbomind/ops/check.h"
#include "turbomind/ops/ops.h"

namespace turbomind {

void Ops::moe_route(tm_moe_route_args args) {
  const ArgumentCheck arg("moe_route", device_);
  arg.tensor("logits", args.logits, TM_F32, {kAny, kAny});
  const int64_t num_tokens = args.logits.shape[0];
  const int64_t num_experts = args.logits.shape[1];
  arg.optional("bias", args.bias, TM_F32, {num_experts});
  arg.require(args.top_k > 0 && args.top_k <= num_experts, "top_k", "1 to the number of experts", args.top_k);
  arg.require(args.score == TM_ROUTE_SOFTMAX || args.score == TM_ROUTE_SIGMOID, "score", "a tm_route_score",
              static_cast<int>(args.score));
  arg.dense("expert_ids", args.expert_ids, TM_I32, {num_tokens, args.top_k});
  arg.dense("weights", args.weights, TM_F32, {num_tokens, args.top_k});
  run(TM_OP_moe_route, device_.plugin().op().moe_route, args);
}

void Ops::moe_permute(tm_moe_permute_args args) {
  const ArgumentCheck arg("moe_permute", device_);
  arg.activation("x", args.x, {kAny, kAny});
  const int64_t num_tokens = args.x.shape[0];
  arg.require(args.num_experts > 0, "num_experts", "a positive count", args.num_experts);
  arg.dense("expert_ids", args.expert_ids, TM_I32, {num_tokens, kAny});
  const int64_t top_k = args.expert_ids.shape[1];
  arg.tensor("out", args.out, args.x.dtype, {num_tokens * top_k, args.x.shape[1]});
  arg.dense("expert_offsets", args.expert_offsets, TM_I32, {args.num_experts + 1});
  arg.dense("position", args.position, TM_I32, {num_tokens, top_k});
  run(TM_OP_moe_permute, device_.plugin().op().moe_permute, args);
}

void Ops::moe_combine(tm_moe_combine_args args) {
  const ArgumentCheck arg("moe_combine", device_);
  arg.activation("out", args.out, {kAny, kAny});
  const int64_t num_tokens = args.out.shape[0];
  arg.dense("position", args.position, TM_I32, {num_tokens, kAny});
  const int64_t top_k = args.position.shape[1];
  arg.dense("weights", args.weights, TM_F32, {num_tokens, top_k});
  arg.tensor("x", args.x, args.out.dtype, {num_tokens * top_k, args.out.shape[1]});
  run(TM_OP_moe_combine, device_.plugin().op().moe_combine, args);
}

}  // namespace turbomind
