// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/rms_norm.h"

namespace turbomind {

RmsNorm::RmsNorm(const LayerContext& context, const std::string& name, int64_t size, float eps)
    : weight_(context.weights, size), eps_(eps) {
  context.weights.declare(name, size, 1,
                          [this, size](const WeightSource& source) { weight_.load(source, whole(size), 0); });
}

void add_to_residual(const StepContext& step, const Tensor& x, const Tensor& residual, const RmsNorm* post_norm,
                     const RmsNorm& norm) {
  const tm_add_rms_norm_args add_norm{
      .x = x, .residual = residual, .weight = norm.weight(), .eps = norm.eps(), .out = x};
  if (post_norm) {
    step.all_reduce(x);
    post_norm->forward(step.ops, x, x);
    step.ops.add_rms_norm(add_norm);
  } else if (step.comm) {
    step.ops.all_reduce_add_rms_norm({.comm = step.comm->handle(), .norm = add_norm});
  } else {
    step.ops.add_rms_norm(add_norm);
  }
}

}  // namespace turbomind
