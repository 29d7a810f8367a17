// SPDX-License-Identifier: Apache-2.0
#include "vision/encoder/encoder_layer.h"

#include <cmath>
#include <vector>

#include "turbomind/layers/ffn.h"

namespace turbomind {
namespace {

std::vector<LinearPart> qkv_parts(const std::string& prefix, int64_t rows) {
  return {{prefix + "q_proj", rows, whole(rows)},
          {prefix + "k_proj", rows, whole(rows)},
          {prefix + "v_proj", rows, whole(rows)}};
}

}  // namespace

EncoderLayer::EncoderLayer(const LayerContext& context, const std::string& prefix, const EncoderConfig& config,
                           const RopeTable* rope)
    : num_heads_(config.num_heads),
      hidden_size_(config.hidden_size),
      intermediate_size_(config.intermediate_size),
      activation_(config.activation),
      rope_(rope),
      norm1_(context, prefix + "norm1", config.norm_kind, hidden_size_, config.norm_eps),
      qkv_proj_(context, qkv_parts(prefix, hidden_size_), hidden_size_, whole(hidden_size_), config.qkv_bias),
      o_proj_(context, {{prefix + "o_proj", hidden_size_, whole(hidden_size_)}}, hidden_size_, whole(hidden_size_),
              config.o_bias),
      norm2_(context, prefix + "norm2", config.norm_kind, hidden_size_, config.norm_eps) {
  if (config.qk_norm) {
    q_norm_.emplace(context, prefix + "q_norm", hidden_size_, config.norm_eps);
    k_norm_.emplace(context, prefix + "k_norm", hidden_size_, config.norm_eps);
  }
  if (config.gated) {
    const FfnConfig ffn{config.intermediate_size, config.activation, config.ffn_bias};
    gated_ffn_ = std::make_unique<Ffn>(context, prefix, ffn, hidden_size_);
    return;
  }
  up_proj_.emplace(context,
                   std::vector<LinearPart>{{prefix + "up_proj", intermediate_size_, whole(intermediate_size_)}},
                   hidden_size_, whole(hidden_size_), config.ffn_bias);
  down_proj_.emplace(context, std::vector<LinearPart>{{prefix + "down_proj", hidden_size_, whole(hidden_size_)}},
                     intermediate_size_, whole(intermediate_size_), config.ffn_bias);
}

void EncoderLayer::forward(const StepContext& step, const Tensor& residual) const {
  const Arena::Scope scope(step.arena);
  const Tensor x = step.arena.allocate("vision_hidden", residual.dtype, {residual.shape[0], hidden_size_});
  norm1_.forward(step.ops, residual, x);
  attend(step, x);
  step.ops.add({.a = residual, .b = x, .out = residual});
  norm2_.forward(step.ops, residual, x);
  feed_forward(step, x);
  step.ops.add({.a = residual, .b = x, .out = residual});
}

void EncoderLayer::attend(const StepContext& step, const Tensor& x) const {
  const Arena::Scope scope(step.arena);
  const int64_t num_rows = x.shape[0];
  const int64_t head_dim = hidden_size_ / num_heads_;
  const Tensor qkv = step.arena.allocate("vision_qkv", x.dtype, {num_rows, 3 * hidden_size_});
  qkv_proj_.forward(step.ops, x, qkv);
  const auto part = [&](int64_t index) { return column_slice(qkv, index * hidden_size_, hidden_size_); };
  if (q_norm_) {
    q_norm_->forward(step.ops, part(0), part(0));
    k_norm_->forward(step.ops, part(1), part(1));
  }
  const auto heads = [&](int64_t index) { return reshape(part(index), {num_rows, num_heads_, head_dim}); };
  if (rope_) {
    tm_rope_args rope = rope_->args();
    rope.q = heads(0);
    rope.k = heads(1);
    rope.positions = step.positions;
    step.ops.rope(rope);
  }
  const Tensor out = step.arena.allocate("vision_attention", x.dtype, {num_rows, num_heads_, head_dim});
  step.ops.attention_dense({.q = heads(0),
                            .k = heads(1),
                            .v = heads(2),
                            .plan = step.plan.handle(),
                            .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim))),
                            .out = out,
                            .product_dtype = qkv_proj_.product_dtype()});
  o_proj_.forward(step.ops, reshape(out, {num_rows, hidden_size_}), x);
}

void EncoderLayer::feed_forward(const StepContext& step, const Tensor& x) const {
  if (gated_ffn_) return gated_ffn_->forward(step, x);
  const Arena::Scope scope(step.arena);
  const Tensor inner = step.arena.allocate("vision_intermediate", x.dtype, {x.shape[0], intermediate_size_});
  up_proj_->forward(step.ops, x, inner, activation_);
  down_proj_->forward(step.ops, inner, x);
}

}  // namespace turbomind
