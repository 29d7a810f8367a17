// SPDX-License-Identifier: Apache-2.0
#include "kernels/moe.h"

#include "ops.h"
#include "ops/tensor_args.h"
#include "ops/workspace.h"

namespace turbomind::cuda {

void CudaOps::moe_route(Stream& stream, const tm_moe_route_args& args, const tm_workspace&) {
  require_matrix(args.logits, TM_F32, "logits");
  require_vector(args.bias, TM_F32, "bias");
  require_matrix(args.expert_ids, TM_I32, "expert_ids");
  require_matrix(args.weights, TM_F32, "weights");
  const int64_t experts = args.logits.shape[1];
  require(experts <= kMaxExperts, "logits",
          "at most " + std::to_string(kMaxExperts) + " experts, found " + std::to_string(experts));
  require(args.top_k > 0 && args.top_k <= experts, "top_k",
          "1 to " + std::to_string(experts) + ", found " + std::to_string(args.top_k));
  require(args.score == TM_ROUTE_SOFTMAX || args.score == TM_ROUTE_SIGMOID, "score", "a tm_route_score");
  launch_moe_route(stream.handle(), args);
}

size_t CudaOps::moe_permute_workspace(Context&, const tm_moe_permute_args& args) {
  WorkspaceArena arena;
  arena.take<int32_t>(args.num_experts);
  return arena.used();
}

void CudaOps::moe_permute(Stream& stream, const tm_moe_permute_args& args, const tm_workspace& workspace) {
  require_rank(args.x, 2, "x");
  require_matrix(args.out, args.x.dtype, "out");
  require_matrix(args.expert_ids, TM_I32, "expert_ids");
  require_matrix(args.position, TM_I32, "position");
  require_vector(args.expert_offsets, TM_I32, "expert_offsets");
  require(args.num_experts > 0, "num_experts", "a positive count, found " + std::to_string(args.num_experts));
  WorkspaceArena arena(workspace);
  launch_moe_permute(stream.handle(), args, arena.take<int32_t>(args.num_experts));
}

void CudaOps::moe_combine(Stream& stream, const tm_moe_combine_args& args, const tm_workspace&) {
  require_rank(args.x, 2, "x");
  require_matrix(args.out, args.x.dtype, "out");
  require_matrix(args.position, TM_I32, "position");
  require_matrix(args.weights, TM_F32, "weights");
  launch_moe_combine(stream.handle(), args);
}

}  // namespace turbomind::cuda
