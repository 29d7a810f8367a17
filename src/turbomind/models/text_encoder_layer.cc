// SPDX-License-Identifier: Apache-2.0
#include "turbomind/models/text_encoder_layer.h"

#include <cmath>
#include <vector>

namespace turbomind {
namespace {

LinearPart part(const std::string& prefix, const char* name, int64_t rows) {
  return {prefix + name, rows, whole(rows)};
}

}  // namespace

TextEncoderLayer::TextEncoderLayer(const LayerContext& context, const std::string& prefix,
                                   const TextEncoderConfig& config)
    : num_heads_(config.num_heads),
      hidden_size_(config.hidden_size),
      intermediate_size_(config.intermediate_size),
      activation_(config.activation),
      qkv_proj_(context,
                {part(prefix, "q_proj", hidden_size_), part(prefix, "k_proj", hidden_size_),
                 part(prefix, "v_proj", hidden_size_)},
                hidden_size_, whole(hidden_size_), true),
      o_proj_(context, {part(prefix, "o_proj", hidden_size_)}, hidden_size_, whole(hidden_size_), true),
      attn_norm_(context, prefix + "attn_norm", NormKind::kLayerNorm, hidden_size_, config.norm_eps),
      up_proj_(context, {part(prefix, "up_proj", intermediate_size_)}, hidden_size_, whole(hidden_size_), true),
      down_proj_(context, {part(prefix, "down_proj", hidden_size_)}, intermediate_size_, whole(intermediate_size_),
                 true),
      ffn_norm_(context, prefix + "ffn_norm", NormKind::kLayerNorm, hidden_size_, config.norm_eps) {}

void TextEncoderLayer::forward(const StepContext& step, const Tensor& x) const {
  const Arena::Scope scope(step.arena);
  const Tensor out = step.arena.allocate("encoder_block", x.dtype, {x.shape[0], hidden_size_});
  attend(step, x, out);
  step.ops.add({.a = x, .b = out, .out = x});
  attn_norm_.forward(step.ops, x, x);
  const Tensor inner = step.arena.allocate("encoder_intermediate", x.dtype, {x.shape[0], intermediate_size_});
  up_proj_.forward(step.ops, x, inner, activation_);
  down_proj_.forward(step.ops, inner, out);
  step.ops.add({.a = x, .b = out, .out = x});
  ffn_norm_.forward(step.ops, x, x);
}

void TextEncoderLayer::attend(const StepContext& step, const Tensor& x, const Tensor& out) const {
  const Arena::Scope scope(step.arena);
  const int64_t num_rows = x.shape[0];
  const int64_t head_dim = hidden_size_ / num_heads_;
  const Tensor qkv = step.arena.allocate("encoder_qkv", x.dtype, {num_rows, 3 * hidden_size_});
  qkv_proj_.forward(step.ops, x, qkv);
  const auto heads = [&](int64_t index) {
    return reshape(column_slice(qkv, index * hidden_size_, hidden_size_), {num_rows, num_heads_, head_dim});
  };
  const Tensor attended = step.arena.allocate("encoder_attention", x.dtype, {num_rows, num_heads_, head_dim});
  step.ops.attention_dense({.q = heads(0),
                            .k = heads(1),
                            .v = heads(2),
                            .plan = step.plan.handle(),
                            .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim))),
                            .out = attended,
                            .product_dtype = qkv_proj_.product_dtype()});
  o_proj_.forward(step.ops, reshape(attended, {num_rows, hidden_size_}), out);
}

}  // namespace turbomind
