// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "turbomind/layers/block.h"
#include "turbomind/layers/block_config.h"
#include "turbomind/layers/linear.h"
#include "turbomind/layers/rms_norm.h"
#include "turbomind/layers/rope_table.h"

namespace turbomind {

// Causal self-attention over a paged KV cache with grouped queries (Ainslie et al. 2023, arXiv:2305.13245), optionally
// with q/k norms, a sliding window and a score cap. Ranks split the heads; with fewer kv heads than ranks, a kv head
// is held by several.
class Attention : public Block {
 public:
  // prefix: "layers.0."; weights q_proj, k_proj, v_proj, o_proj, their biases, q_norm, k_norm. rope outlives this.
  Attention(const LayerContext& context, const std::string& prefix, const AttentionConfig& config, int64_t hidden_size,
            float norm_eps, const RopeTable& rope);

  void forward(const StepContext& step, const Tensor& x) const override;
  // The wanted rows' queries alone meet the cache.
  void forward_rows(const StepContext& step, const Tensor& x, const WantedRows& wanted,
                    const Tensor& out) const override;
  KvPool* kv_pool() override { return &kv_pool_; }
  std::optional<tm_attention_shape> attention_shape() const override {
    return tm_attention_shape{static_cast<int32_t>(heads_.count), config_.window, kv_pool_.view().spec};
  }

 private:
  // Writes the keys and values of x, float [T, H], to the cache; returns the queries, [T, heads, head_dim].
  Tensor write_kv(const StepContext& step, const Tensor& x) const;
  // plan: of the queries' tokens. Returns float [T, heads * head_dim].
  Tensor attend(const StepContext& step, const Plan& plan, const Tensor& queries) const;

  AttentionConfig config_;  // of the whole model
  const RopeTable& rope_;
  Range heads_;     // this rank's
  Range kv_heads_;  // this rank's
  Linear qkv_proj_;
  Linear o_proj_;
  std::optional<RmsNorm> q_norm_;
  std::optional<RmsNorm> k_norm_;
  float norm_eps_;
  KvPool kv_pool_;
};

}  // namespace turbomind
