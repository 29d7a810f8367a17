// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "turbomind/layers/block_config.h"

namespace turbomind {

// The typed description of a vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) and of what projects its
// patches into a decoder's embeddings. Python's manymind.models.vision_config mirrors it field by field.

// From encoder rows to embeddings: [norm,] join merge_size neighbours, [norm,] one linear or two with an activation.
struct ProjectorConfig {
  int32_t merge_size = 1;  // rows that become one
  bool average = false;    // they are averaged; else they stand side by side
  bool norm = false;
  bool norm_after_merge = false;
  NormKind norm_kind = NormKind::kLayerNorm;
  float norm_eps = 1e-6F;
  int32_t hidden_size = 0;  // between two linears; 0: there is one
  tm_activation_kind activation = TM_ACTIVATION_GELU_ERF;
  bool bias = true;
};

struct EncoderConfig {
  int32_t patch_dim = 0;  // values of a patch: channels * frames * height * width
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t intermediate_size = 0;
  int32_t out_hidden_size = 0;  // of the decoder
  NormKind norm_kind = NormKind::kLayerNorm;
  float norm_eps = 1e-6F;
  tm_activation_kind activation = TM_ACTIVATION_GELU_TANH;
  bool gated = false;  // the feed-forward network is gated
  bool patch_bias = false;
  bool qkv_bias = true;
  bool o_bias = true;
  bool ffn_bias = true;
  bool pre_norm = false;   // a norm before the first layer
  bool post_norm = false;  // a norm after the last layer
  bool qk_norm = false;    // RMS norm over all heads of q and of k together
  int32_t table_rows = 0;  // of the learned position table; 0: none
  // Rotary positions; dim = head size. Pairs turn by the axes none, row and column of the patch.
  std::optional<RopeConfig> rope;
  std::vector<int32_t> full_layers;  // layers that attend beyond a window; empty: all do
  ProjectorConfig projector;
  // DeepStack (Meng et al. 2024, arXiv:2406.04334): the outputs of these layers are projected, too, and added to the
  // decoder's first layers.
  std::vector<int32_t> deepstack_layers;
  ProjectorConfig deepstack;
  bool newline = false;  // there is an embedding that ends a row of patches

  bool has_windows() const { return !full_layers.empty(); }
  bool is_full(int32_t layer) const;
  int32_t num_deepstack() const { return static_cast<int32_t>(deepstack_layers.size()); }
  // Values per output row: the embedding, then one vector per deepstack layer.
  int64_t width() const { return int64_t{out_hidden_size} * (1 + num_deepstack()); }
};

// Throws kInvalidArgument naming the field, what was expected and what was found.
void validate(const EncoderConfig& config);

}  // namespace turbomind
