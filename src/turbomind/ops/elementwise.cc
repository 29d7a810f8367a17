// SPDX-License-Identifier: Apache-2.0
#include "turbomind/ops/check.h"
#include "turbomind/ops/ops.h"

namespace turbomind {

void Ops::embedding(tm_embedding_args args) {
  const ArgumentCheck arg("embedding", device_);
  arg.dense("ids", args.ids, TM_I32, {kAny});
  arg.handle("weight", args.weight);
  arg.activation("out", args.out, {args.ids.shape[0], kAny});
  run(TM_OP_embedding, device_.plugin().op().embedding, args);
}

void Ops::activation(tm_activation_args args) {
  const ArgumentCheck arg("activation", device_);
  arg.activation("x", args.x, {kAny, kAny});
  arg.kind(args.kind);
  arg.same_shape("out", args.out, args.x);
  run(TM_OP_activation, device_.plugin().op().activation, args);
}

void Ops::gated_activation(tm_gated_activation_args args) {
  const ArgumentCheck arg("gated_activation", device_);
  arg.activation("gate", args.gate, {kAny, kAny});
  arg.same_shape("up", args.up, args.gate);
  arg.kind(args.kind);
  arg.same_shape("out", args.out, args.gate);
  run(TM_OP_gated_activation, device_.plugin().op().gated_activation, args);
}

void Ops::add(tm_add_args args) {
  const ArgumentCheck arg("add", device_);
  arg.activation("a", args.a, {kAny, kAny});
  arg.same_shape("b", args.b, args.a);
  arg.same_shape("out", args.out, args.a);
  run(TM_OP_add, device_.plugin().op().add, args);
}

void Ops::cast(tm_cast_args args) {
  const ArgumentCheck arg("cast", device_);
  arg.tensor("in", args.in, args.in.dtype, {kAny, kAny});
  arg.tensor("out", args.out, args.out.dtype, {args.in.shape[0], args.in.shape[1]});
  run(TM_OP_cast, device_.plugin().op().cast, args);
}

void Ops::softcap(tm_softcap_args args) {
  const ArgumentCheck arg("softcap", device_);
  arg.tensor("x", args.x, TM_F32, {kAny, kAny});
  arg.require(args.cap > 0, "cap", "a cap > 0", args.cap);
  arg.same_shape("out", args.out, args.x);
  check(offered(TM_OP_softcap), ErrorCode::kUnsupported, "softcap: the ", device_.plugin().name(),
        " backend does not offer this op");
  run(TM_OP_softcap, device_.plugin().op().softcap, args);
}

}  // namespace turbomind
