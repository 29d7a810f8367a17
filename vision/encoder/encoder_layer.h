// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "turbomind/layers/block.h"
#include "turbomind/layers/linear.h"
#include "turbomind/layers/norm.h"
#include "turbomind/layers/rms_norm.h"
#include "turbomind/layers/rope_table.h"
#include "vision/encoder/encoder_config.h"

namespace turbomind {

// One layer of the encoder: attention inside each segment, then a feed-forward network, each between a norm and the
// residual.
class EncoderLayer {
 public:
  // prefix: "vision.layers.0."; weights norm1, q_proj, k_proj, v_proj, o_proj, q_norm, k_norm, norm2, up_proj,
  // down_proj, of a gated network also gate_proj. rope: null for none; outlives this.
  EncoderLayer(const LayerContext& context, const std::string& prefix, const EncoderConfig& config,
               const RopeTable* rope);

  // Adds the layer's output to residual, float [T, hidden]. step.plan: the segments; step.positions: i32 [3, T], zeros,
  // rows and columns.
  void forward(const StepContext& step, const Tensor& residual) const;

 private:
  void attend(const StepContext& step, const Tensor& x) const;
  void feed_forward(const StepContext& step, const Tensor& x) const;

  const int64_t num_heads_;
  const int64_t hidden_size_;
  const int64_t intermediate_size_;
  const tm_activation_kind activation_;
  const RopeTable* const rope_;
  Norm norm1_;
  Linear qkv_proj_;
  std::optional<RmsNorm> q_norm_;
  std::optional<RmsNorm> k_norm_;
  Linear o_proj_;
  Norm norm2_;
  std::unique_ptr<Block> gated_ffn_;  // or the two below
  std::optional<Linear> up_proj_;
  std::optional<Linear> down_proj_;
};

}  // namespace turbomind
