// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm.h"

#include "ops.h"
#include "ops/tensor_args.h"

namespace turbomind::cuda {

void CudaOps::rms_norm(Stream& stream, const tm_rms_norm_args& args, const tm_workspace&) {
  if (args.x.ndim == 3) {
    require_heads(args.x, args.x.dtype, "x");
    require_heads(args.out, args.x.dtype, "out");
  } else {
    require_rank(args.x, 2, "x");
    require_matrix(args.out, args.x.dtype, "out");
  }
  require_vector(args.weight, TM_F32, "weight");
  launch_rms_norm(stream.handle(), args);
}

void CudaOps::layer_norm(Stream& stream, const tm_layer_norm_args& args, const tm_workspace&) {
  require_rank(args.x, 2, "x");
  require_matrix(args.out, args.x.dtype, "out");
  require_vector(args.weight, TM_F32, "weight");
  require_vector(args.bias, TM_F32, "bias");
  launch_layer_norm(stream.handle(), args);
}

void CudaOps::add_rms_norm(Stream& stream, const tm_add_rms_norm_args& args, const tm_workspace&) {
  require_rank(args.x, 2, "x");
  require_matrix(args.residual, args.x.dtype, "residual");
  require_matrix(args.out, args.x.dtype, "out");
  require_vector(args.weight, TM_F32, "weight");
  launch_add_rms_norm(stream.handle(), args);
}

}  // namespace turbomind::cuda
