// SPDX-License-Identifier: Apache-2.0
//
// What an optional op means in terms of required ones. Tensors between the parts carry the activation dtype, so a
// fused op may round less often than its composition, never more.
#include <algorithm>

#include "turbomind/ops/ops.h"

namespace turbomind {

void Ops::compose(tm_add_rms_norm_args& args) {
  add({.a = args.x, .b = args.residual, .out = args.residual});
  rms_norm({.x = args.residual, .weight = args.weight, .eps = args.eps, .out = args.out});
}

void Ops::compose(tm_qk_norm_rope_kv_write_args& args) {
  const Tensor& q = args.rope.q;
  const Tensor& k = args.rope.k;
  if (is_given(args.q_norm_weight)) {
    rms_norm({.x = q, .weight = args.q_norm_weight, .eps = args.norm_eps, .out = q});
  }
  if (is_given(args.k_norm_weight)) {
    rms_norm({.x = k, .weight = args.k_norm_weight, .eps = args.norm_eps, .out = k});
  }
  rope(args.rope);
  kv_write(args.kv_write);
}

void Ops::compose(tm_linear_gated_activation_args& args) {
  const int64_t rows = args.out.shape[0];
  const int64_t columns = args.out.shape[1];
  const size_t half = align_up(static_cast<size_t>(rows * columns) * dtype_size(args.out.dtype));
  tm_linear_args both{.x = args.x,
                      .num_weights = 2,
                      .weight = {args.gate, args.up},
                      .bias = {args.gate_bias, args.up_bias},
                      .out = {args.out, args.out}};
  tm_gated_activation_args gated{.gate = args.out, .up = args.out, .kind = args.kind, .out = args.out};
  const size_t scratch = std::max(workspace_bytes(TM_OP_linear, both), workspace_bytes(TM_OP_gated_activation, gated));
  // Asked for as a whole: the workspace must not move once the first part has run.
  char* base = static_cast<char*>(require_workspace(2 * half + scratch).data);
  gated.gate = both.out[0] = make_tensor(base, args.out.dtype, {rows, columns});
  gated.up = both.out[1] = make_tensor(base + half, args.out.dtype, {rows, columns});
  run(TM_OP_linear, device_.plugin().op().linear, both, 2 * half);
  run(TM_OP_gated_activation, device_.plugin().op().gated_activation, gated, 2 * half);
}

void Ops::compose(tm_all_reduce_add_rms_norm_args& args) {
  const tm_comm_api* comm = device_.plugin().comm();
  check(comm != nullptr, ErrorCode::kUnsupported, device_.plugin().name(), " backend: has no collectives");
  if (mode_ == Mode::kRun) {
    const tm_status status = comm->all_reduce(args.comm, stream_.handle(), &args.norm.x, &args.norm.x, TM_REDUCE_SUM);
    device_.plugin().check_status(status, "all_reduce");
  }
  add_rms_norm(args.norm);
}

}  // namespace turbomind
