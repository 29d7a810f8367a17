// SPDX-License-Identifier: Apache-2.0
#include "ops.h"

namespace turbomind::ascend {
namespace {

// The operator's other result: one number per normalised row, in x's rank.
View statistics(Launch& launch, const View& x) {
  return x.rank == 2 ? launch.take(kAclFloat, {x.dim(0), 1}) : launch.take(kAclFloat, {x.dim(0), x.dim(1), 1});
}

void rms_norm(Launch& launch, const View& x, const tm_tensor& weight, float eps, const View& out) {
  const View rstd = statistics(launch, x);
  launch(library().op.RmsNorm, x, make_view(weight), static_cast<double>(eps), out, rstd);
}

}  // namespace

void compose(Launch& launch, const tm_rms_norm_args& args) {
  require_float(args.x, "x");
  require_dtype(args.weight, TM_F32, "weight");
  if (args.x.shape[0] == 0) return;
  const View x = make_view(args.x);
  const View out = make_view(args.out);
  if (args.out.data != args.x.data && !launch.counting()) return rms_norm(launch, x, args.weight, args.eps, out);
  // The operator promises nothing about a result that lies where its operand does.
  View result =
      x.rank == 2 ? launch.take(x.type, {x.dim(0), x.dim(1)}) : launch.take(x.type, {x.dim(0), x.dim(1), x.dim(2)});
  rms_norm(launch, x, args.weight, args.eps, result);
  launch.copy(out, result);
}

void compose(Launch& launch, const tm_layer_norm_args& args) {
  require_float(args.x, "x");
  require_dtype(args.weight, TM_F32, "weight");
  const int64_t rows = args.x.shape[0];
  const int64_t cols = args.x.shape[1];
  if (rows == 0) return;
  const View x = make_view(args.x);
  const View result = launch.take(x.type, {rows, cols});
  const View mean = launch.take(x.type, {rows, 1});
  const View rstd = launch.take(x.type, {rows, 1});
  const auto norm = [&](const auto& bias) {
    launch(library().op.LayerNorm, x, Numbers{{cols}}, make_view(args.weight), bias, static_cast<double>(args.eps),
           result, mean, rstd);
  };
  given(args.bias) ? norm(make_view(args.bias)) : norm(nullptr);
  launch.copy(make_view(args.out), result);
}

// In float32 one operator; in 16 bits it would round the weight, so there the sum and the norm are two.
void compose(Launch& launch, const tm_add_rms_norm_args& args) {
  require_float(args.x, "x");
  require_dtype(args.weight, TM_F32, "weight");
  const int64_t rows = args.x.shape[0];
  const int64_t cols = args.x.shape[1];
  if (rows == 0) return;
  const Operators& op = library().op;
  const View x = make_view(args.x);
  const View residual = make_view(args.residual);
  const View out = make_view(args.out);
  const View sum = launch.take(x.type, {rows, cols});
  if (x.type == kAclFloat && op.AddRmsNorm.available()) {
    const View result = launch.take(x.type, {rows, cols});
    const View rstd = launch.take(kAclFloat, {rows, 1});
    launch(op.AddRmsNorm, x, residual, make_view(args.weight), static_cast<double>(args.eps), result, rstd, sum);
    launch.copy(out, result);
    launch.copy(residual, sum);
    return;
  }
  launch(op.Add, x, residual, Number{1}, residual);
  rms_norm(launch, residual, args.weight, args.eps, out);
}

}  // namespace turbomind::ascend
