// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "turbomind/layers/block_config.h"

namespace turbomind {

// The typed description of a decoder-only transformer. Python's manymind.models.config mirrors it field by field.

struct LayerConfig {
  AttentionConfig attention;
  FfnConfig ffn;
  bool post_attention_norm = false;  // a norm on the block's output, before it joins the residual
  bool post_ffn_norm = false;
};

struct DecoderConfig {
  std::string architecture;
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t context_length = 0;
  float norm_eps = 0.0F;
  float embed_scale = 1.0F;
  bool tie_word_embeddings = false;
  float logit_softcap = 0.0F;
  int32_t num_deepstack = 0;         // first layers to whose outputs pictures add a vector of their own
  bool bidirectional_media = false;  // the tokens of a picture see each other, also those after them
  std::vector<RopeConfig> ropes;
  std::vector<LayerConfig> layers;

  // Positions are in time, height and width.
  bool has_axes() const { return !ropes.empty() && ropes.front().has_axes(); }
};

// Throws kInvalidArgument naming the field, what was expected and what was found.
void validate(const DecoderConfig& config);

}  // namespace turbomind
