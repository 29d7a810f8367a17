// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "turbomind/layers/float_vector.h"
#include "turbomind/layers/layer_context.h"

namespace turbomind {

// Zhang & Sennrich 2019, arXiv:1910.07467. Every rank holds the whole weight, [size].
class RmsNorm {
 public:
  RmsNorm(const LayerContext& context, const std::string& name, int64_t size, float eps);
  RmsNorm(const RmsNorm&) = delete;
  RmsNorm& operator=(const RmsNorm&) = delete;

  // x, out: float [T, size] or [T, heads, size]; out may be x.
  void forward(Ops& ops, const Tensor& x, const Tensor& out) const {
    ops.rms_norm({.x = x, .weight = weight(), .eps = eps_, .out = out});
  }
  Tensor weight() const { return weight_.tensor(); }
  float eps() const { return eps_; }

 private:
  FloatVector weight_;
  float eps_;
};

// residual += post_norm(sum of x over the ranks), then x = norm(residual): how a block's output joins the residual
// stream and becomes the next block's input. x, residual: float [T, H]. post_norm: null for most models.
void add_to_residual(const StepContext& step, const Tensor& x, const Tensor& residual, const RmsNorm* post_norm,
                     const RmsNorm& norm);

}  // namespace turbomind
