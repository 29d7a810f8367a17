// SPDX-License-Identifier: Apache-2.0
#include "turbomind/ops/check.h"
#include "turbomind/ops/ops.h"

namespace turbomind {

void Ops::linear(tm_linear_args args) {
  const ArgumentCheck arg("linear", device_);
  arg.activation("x", args.x, {kAny, kAny});
  arg.require(args.num_weights >= 1 && args.num_weights <= TM_MAX_FUSED_WEIGHTS, "num_weights", "1 to 4",
              args.num_weights);
  arg.kind(args.activation);
  for (int i = 0; i < args.num_weights; ++i) {
    const Tensor& out = args.out[i];
    arg.handle("weight", args.weight[i]);
    arg.require(out.dtype == args.x.dtype || out.dtype == TM_F32, "out", "x's dtype or f32", to_string(out));
    arg.tensor("out", out, out.dtype, {args.x.shape[0], kAny});
    arg.optional("bias", args.bias[i], TM_F32, {out.shape[1]});
  }
  run(TM_OP_linear, device_.plugin().op().linear, args);
}

void Ops::grouped_linear(tm_grouped_linear_args args) {
  const ArgumentCheck arg("grouped_linear", device_);
  arg.activation("x", args.x, {kAny, kAny});
  arg.handle("weight", args.weight);
  arg.dense("expert_offsets", args.expert_offsets, TM_I32, {kAny});
  arg.tensor("out", args.out, args.x.dtype, {args.x.shape[0], kAny});
  run(TM_OP_grouped_linear, device_.plugin().op().grouped_linear, args);
}

void Ops::linear_gated_activation(tm_linear_gated_activation_args args) {
  const ArgumentCheck arg("linear_gated_activation", device_);
  arg.activation("x", args.x, {kAny, kAny});
  arg.handle("gate", args.gate);
  arg.handle("up", args.up);
  arg.kind(args.kind);
  arg.tensor("out", args.out, args.x.dtype, {args.x.shape[0], kAny});
  arg.optional("gate_bias", args.gate_bias, TM_F32, {args.out.shape[1]});
  arg.optional("up_bias", args.up_bias, TM_F32, {args.out.shape[1]});
  const auto slot = device_.plugin().op().linear_gated_activation;
  slot ? run(TM_OP_linear_gated_activation, slot, args) : compose(args);
}

}  // namespace turbomind
