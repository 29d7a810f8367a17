// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "turbomind/layers/block_config.h"
#include "turbomind/layers/float_vector.h"
#include "turbomind/layers/layer_context.h"

namespace turbomind {

// Layer norm (Ba et al. 2016, arXiv:1607.06450) or RMS norm (Zhang & Sennrich 2019, arXiv:1910.07467). Weight "name",
// of a layer norm also "name.bias".
class Norm {
 public:
  Norm(const LayerContext& context, const std::string& name, NormKind kind, int64_t size, float eps);
  Norm(const Norm&) = delete;
  Norm& operator=(const Norm&) = delete;

  // x, out: float [T, size]; out may be x.
  void forward(Ops& ops, const Tensor& x, const Tensor& out) const;

 private:
  FloatVector weight_;
  std::optional<FloatVector> bias_;
  float eps_;
};

}  // namespace turbomind
