// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "turbomind/layers/linear.h"
#include "turbomind/layers/norm.h"
#include "turbomind/models/text_encoder_config.h"

namespace turbomind {

// One layer: attention within each text in both directions, then a feed-forward network; each is joined to the residual
// before its norm.
class TextEncoderLayer {
 public:
  // prefix: "encoder.layers.0."; weights q_proj, k_proj, v_proj, o_proj, attn_norm, up_proj, down_proj, ffn_norm and
  // their biases.
  TextEncoderLayer(const LayerContext& context, const std::string& prefix, const TextEncoderConfig& config);

  // Replaces x, float [T, hidden]. step.plan: the texts.
  void forward(const StepContext& step, const Tensor& x) const;

 private:
  // out: float [T, hidden].
  void attend(const StepContext& step, const Tensor& x, const Tensor& out) const;

  const int64_t num_heads_;
  const int64_t hidden_size_;
  const int64_t intermediate_size_;
  const tm_activation_kind activation_;
  Linear qkv_proj_;
  Linear o_proj_;
  Norm attn_norm_;
  Linear up_proj_;
  Linear down_proj_;
  Norm ffn_norm_;
};

}  // namespace turbomind
