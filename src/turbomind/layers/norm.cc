// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/norm.h"

namespace turbomind {

Norm::Norm(const LayerContext& context, const std::string& name, NormKind kind, int64_t size, float eps)
    : weight_(context.weights, size), eps_(eps) {
  context.weights.declare(name, size, 1,
                          [this, size](const WeightSource& source) { weight_.load(source, whole(size), 0); });
  if (kind == NormKind::kRmsNorm) return;
  bias_.emplace(context.weights, size);
  context.weights.declare(name + ".bias", size, 1,
                          [this, size](const WeightSource& source) { bias_->load(source, whole(size), 0); });
}

void Norm::forward(Ops& ops, const Tensor& x, const Tensor& out) const {
  if (bias_) {
    ops.layer_norm({.x = x, .weight = weight_.tensor(), .bias = bias_->tensor(), .eps = eps_, .out = out});
  } else {
    ops.rms_norm({.x = x, .weight = weight_.tensor(), .eps = eps_, .out = out});
  }
}

}  // namespace turbomind
