// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "turbomind/layers/block.h"
#include "turbomind/layers/block_config.h"
#include "turbomind/layers/linear.h"

namespace turbomind {

// down(activation(gate(x)) * up(x)): a gated feed-forward network (Shazeer 2020, arXiv:2002.05202). Ranks split the
// intermediate features.
class Ffn : public Block {
 public:
  // prefix: "layers.0."; weights gate_proj, up_proj, down_proj and their biases.
  Ffn(const LayerContext& context, const std::string& prefix, const FfnConfig& config, int64_t hidden_size);

  void forward(const StepContext& step, const Tensor& x) const override;

 private:
  FfnConfig config_;
  Range features_;  // this rank's
  Linear gate_proj_;
  Linear up_proj_;
  Linear down_proj_;
};

}  // namespace turbomind
