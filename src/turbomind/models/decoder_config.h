// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "abi/tm_backend.h"

namespace turbomind {

// The typed description of a decoder-only transformer. Python's manymind.models.config mirrors it field by field.

struct RopeConfig {
  int32_t dim = 0;  // rotated dimensions of a head
  tm_rope_style style = TM_ROPE_NEOX;
  std::vector<double> inv_freq;   // [dim / 2], context scaling already applied
  double attention_factor = 1.0;  // multiplies cos and sin (YaRN)
};

struct AttentionConfig {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 0.0F;
  int32_t window = 0;  // visible positions including the own one; 0 = all
  float softcap = 0.0F;
  bool qkv_bias = false;
  bool o_bias = false;
  bool qk_norm = false;
  int32_t rope = 0;  // index into DecoderConfig::ropes
};

struct FfnConfig {
  int32_t intermediate_size = 0;
  tm_activation_kind activation = TM_ACTIVATION_SILU;
  bool bias = false;
};

struct LayerConfig {
  AttentionConfig attention;
  FfnConfig ffn;
  bool post_attention_norm = false;
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
  std::vector<RopeConfig> ropes;
  std::vector<LayerConfig> layers;
};

}  // namespace turbomind
