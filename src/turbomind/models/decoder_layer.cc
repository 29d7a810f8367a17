// SPDX-License-Identifier: Apache-2.0
#include "turbomind/models/decoder_layer.h"

#include "turbomind/layers/attention.h"
#include "turbomind/layers/ffn.h"

namespace turbomind {
namespace {

std::unique_ptr<Block> make_attention(const LayerContext& context, const std::string& prefix,
                                      const DecoderConfig& config, const LayerConfig& layer,
                                      const std::vector<std::unique_ptr<RopeTable>>& ropes) {
  const RopeTable& rope = *ropes[static_cast<size_t>(layer.attention.rope)];
  return std::make_unique<Attention>(context, prefix, layer.attention, config.hidden_size, config.norm_eps, rope);
}

std::unique_ptr<Block> make_ffn(const LayerContext& context, const std::string& prefix, const DecoderConfig& config,
                                const LayerConfig& layer) {
  return std::make_unique<Ffn>(context, prefix, layer.ffn, config.hidden_size);
}

const RmsNorm* pointer_to(const std::optional<RmsNorm>& norm) { return norm ? &*norm : nullptr; }

}  // namespace

DecoderLayer::DecoderLayer(const LayerContext& context, const std::string& prefix, const DecoderConfig& config,
                           const LayerConfig& layer, const std::vector<std::unique_ptr<RopeTable>>& ropes)
    : attention_norm_(context, prefix + "attn_norm", config.hidden_size, config.norm_eps),
      attention_(make_attention(context, prefix, config, layer, ropes)),
      ffn_norm_(context, prefix + "ffn_norm", config.hidden_size, config.norm_eps),
      ffn_(make_ffn(context, prefix, config, layer)) {
  const auto add_norm = [&](std::optional<RmsNorm>& norm, const char* name) {
    norm.emplace(context, prefix + name, config.hidden_size, config.norm_eps);
  };
  if (layer.post_attention_norm) add_norm(post_attention_norm_, "post_attn_norm");
  if (layer.post_ffn_norm) add_norm(post_ffn_norm_, "post_ffn_norm");
}

void DecoderLayer::forward(const StepContext& step, const Tensor& x, const Tensor& residual,
                           const RmsNorm& next_norm) const {
  attention_->forward(step, x);
  finish(step, x, residual, next_norm);
}

void DecoderLayer::forward_rows(const StepContext& step, const Tensor& x, const Tensor& residual,
                                const WantedRows& wanted, const RmsNorm& next_norm) const {
  if (wanted.count() == 0) return attention_->forward_rows(step, x, wanted, {});
  const Arena::Scope scope(step.arena);
  const auto allocate = [&](const char* name) {
    return step.arena.allocate(name, x.dtype, {wanted.count(), x.shape[1]});
  };
  const Tensor wanted_x = allocate("wanted_rows");
  const Tensor wanted_residual = allocate("wanted_residual");
  attention_->forward_rows(step, x, wanted, wanted_x);
  step.ops.gather_rows({.in = residual, .index = wanted.rows, .out = wanted_residual});
  finish(step, wanted_x, wanted_residual, next_norm);
  step.ops.scatter_rows({.in = wanted_x, .index = wanted.rows, .out = x});
}

void DecoderLayer::finish(const StepContext& step, const Tensor& x, const Tensor& residual,
                          const RmsNorm& next_norm) const {
  add_to_residual(step, x, residual, pointer_to(post_attention_norm_), ffn_norm_);
  ffn_->forward(step, x);
  add_to_residual(step, x, residual, pointer_to(post_ffn_norm_), next_norm);
}

}  // namespace turbomind
