// SPDX-License-Identifier: Apache-2.0
#include "turbomind/ops/check.h"
#include "turbomind/ops/ops.h"

namespace turbomind {
namespace {

void check_add_rms_norm(const ArgumentCheck& arg, const tm_add_rms_norm_args& args) {
  arg.activation("x", args.x, {kAny, kAny});
  arg.same_shape("residual", args.residual, args.x);
  arg.dense("weight", args.weight, TM_F32, {args.x.shape[1]});
  arg.same_shape("out", args.out, args.x);
}

}  // namespace

void Ops::rms_norm(tm_rms_norm_args args) {
  const ArgumentCheck arg("rms_norm", device_);
  arg.ndim("x", args.x, 2, 3);
  if (args.x.ndim == 2) {
    arg.activation("x", args.x, {kAny, kAny});
  } else {
    arg.activation("x", args.x, {kAny, kAny, kAny});
  }
  arg.dense("weight", args.weight, TM_F32, {args.x.shape[args.x.ndim - 1]});
  arg.same_shape("out", args.out, args.x);
  run(TM_OP_rms_norm, device_.plugin().op().rms_norm, args);
}

void Ops::layer_norm(tm_layer_norm_args args) {
  const ArgumentCheck arg("layer_norm", device_);
  arg.activation("x", args.x, {kAny, kAny});
  arg.dense("weight", args.weight, TM_F32, {args.x.shape[1]});
  arg.optional("bias", args.bias, TM_F32, {args.x.shape[1]});
  arg.same_shape("out", args.out, args.x);
  run(TM_OP_layer_norm, device_.plugin().op().layer_norm, args);
}

void Ops::add_rms_norm(tm_add_rms_norm_args args) {
  check_add_rms_norm(ArgumentCheck("add_rms_norm", device_), args);
  const auto slot = device_.plugin().op().add_rms_norm;
  slot ? run(TM_OP_add_rms_norm, slot, args) : compose(args);
}

void Ops::all_reduce_add_rms_norm(tm_all_reduce_add_rms_norm_args args) {
  const ArgumentCheck arg("all_reduce_add_rms_norm", device_);
  arg.handle("comm", args.comm);
  check_add_rms_norm(arg, args.norm);
  args.norm.struct_size = sizeof args.norm;
  const auto slot = device_.plugin().op().all_reduce_add_rms_norm;
  slot ? run(TM_OP_all_reduce_add_rms_norm, slot, args) : compose(args);
}

}  // namespace turbomind
