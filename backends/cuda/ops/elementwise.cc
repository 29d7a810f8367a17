// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise.h"

#include "ops.h"
#include "ops/tensor_args.h"

namespace turbomind::cuda {
namespace {

void require_kind(tm_activation_kind kind) {
  require(kind >= TM_ACTIVATION_NONE && kind <= TM_ACTIVATION_RELU, "kind",
          "a tm_activation_kind, found " + std::to_string(static_cast<int>(kind)));
}

}  // namespace

void CudaOps::activation(Stream& stream, const tm_activation_args& args, const tm_workspace&) {
  require_rank(args.x, 2, "x");
  require_matrix(args.out, args.x.dtype, "out");
  require_kind(args.kind);
  launch_activation(stream.handle(), args);
}

void CudaOps::gated_activation(Stream& stream, const tm_gated_activation_args& args, const tm_workspace&) {
  require_rank(args.gate, 2, "gate");
  require_matrix(args.up, args.gate.dtype, "up");
  require_matrix(args.out, args.gate.dtype, "out");
  require_kind(args.kind);
  launch_gated_activation(stream.handle(), args);
}

void CudaOps::add(Stream& stream, const tm_add_args& args, const tm_workspace&) {
  require_rank(args.a, 2, "a");
  require_matrix(args.b, args.a.dtype, "b");
  require_matrix(args.out, args.a.dtype, "out");
  launch_add(stream.handle(), args);
}

void CudaOps::softcap(Stream& stream, const tm_softcap_args& args, const tm_workspace&) {
  require_matrix(args.x, TM_F32, "x");
  require_matrix(args.out, TM_F32, "out");
  require(args.cap > 0.0f, "cap", "a positive number, found " + std::to_string(args.cap));
  launch_softcap(stream.handle(), args);
}

void CudaOps::cast(Stream& stream, const tm_cast_args& args, const tm_workspace&) {
  require_rank(args.in, 2, "in");
  require_rank(args.out, 2, "out");
  launch_cast(stream.handle(), args);
}

}  // namespace turbomind::cuda
