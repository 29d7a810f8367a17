// SPDX-License-Identifier: Apache-2.0
#include "ops.h"
#include "ops/row_loop.h"

namespace turbomind::cpu {

void CpuOps::rms_norm(Stream& stream, const tm_rms_norm_args& args, const tm_workspace&) {
  const Rows x = rows_arg(args.x, "x");
  const Rows out = rows_arg(args.out, "out");
  const float* weight = vector_arg<float>(args.weight, "weight");
  const NormKernels& kernels = stream.kernels().norm;
  for_rows(stream, x.outer * x.inner, x.cols,
           [&](int64_t i) { kernels.rms_norm(x.row(i), weight, args.eps, x.cols, out.row(i)); });
}

void CpuOps::add_rms_norm(Stream& stream, const tm_add_rms_norm_args& args, const tm_workspace&) {
  const Rows x = rows_arg(args.x, "x");
  const Rows residual = rows_arg(args.residual, "residual");
  const Rows out = rows_arg(args.out, "out");
  const float* weight = vector_arg<float>(args.weight, "weight");
  const NormKernels& kernels = stream.kernels().norm;
  for_rows(stream, x.outer * x.inner, x.cols,
           [&](int64_t i) { kernels.add_rms_norm(x.row(i), residual.row(i), weight, args.eps, x.cols, out.row(i)); });
}

void CpuOps::layer_norm(Stream& stream, const tm_layer_norm_args& args, const tm_workspace&) {
  const Rows x = rows_arg(args.x, "x");
  const Rows out = rows_arg(args.out, "out");
  const float* weight = vector_arg<float>(args.weight, "weight");
  const float* bias = vector_arg<float>(args.bias, "bias");
  const NormKernels& kernels = stream.kernels().norm;
  for_rows(stream, x.outer * x.inner, x.cols,
           [&](int64_t i) { kernels.layer_norm(x.row(i), weight, bias, args.eps, x.cols, out.row(i)); });
}

}  // namespace turbomind::cpu
