// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tm_backend.h"

namespace turbomind {

// Typed descriptions of the blocks in this folder. Counts are of the whole model, not of one rank.

enum class NormKind { kLayerNorm, kRmsNorm };

struct RopeConfig {
  int32_t dim = 0;  // rotated dimensions of a head
  tm_rope_style style = TM_ROPE_NEOX;
  std::vector<double> inv_freq;   // [dim / 2], context scaling already applied
  double attention_factor = 1.0;  // multiplies cos and sin (YaRN, Peng et al. 2023, arXiv:2309.00071)
  // Positions in time, height and width (M-RoPE, Wang et al. 2024, arXiv:2409.12191): pairs per axis; all 0: plain.
  std::array<int32_t, 3> mrope_section{};
  bool mrope_interleaved = false;  // the axes take turns, see tm_rope_args

  bool has_axes() const { return mrope_section[0] + mrope_section[1] + mrope_section[2] > 0; }
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

}  // namespace turbomind
