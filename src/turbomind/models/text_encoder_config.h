// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tm_backend.h"

namespace turbomind {

// The typed description of a bidirectional transformer (BERT, Devlin et al. 2019, arXiv:1810.04805) that makes one
// vector of a text. Python's manymind.models.text_encoder mirrors it field by field.
struct TextEncoderConfig {
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t intermediate_size = 0;
  int32_t max_positions = 0;
  float norm_eps = 0.0F;
  tm_activation_kind activation = TM_ACTIVATION_GELU_ERF;
  bool pools_first = false;  // the vector is the first token's; else the mean of all
};

// Throws kInvalidArgument naming the field, what was expected and what was found.
void validate(const TextEncoderConfig& config);

}  // namespace turbomind
