// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "turbomind/layers/weight_source.h"
#include "turbomind/models/text_encoder_config.h"
#include "turbomind/runtime/device.h"

namespace turbomind {

struct TextEncoderOptions {
  tm_dtype activation_dtype = TM_F32;
  tm_compute compute = TM_COMPUTE_DEFAULT;
  bool int8_weights = false;  // see WeightStore
  int64_t max_text_len = 0;   // tokens of one text
  int64_t max_tokens = 0;     // of all texts of one call
};

// A bidirectional encoder on one device: weights, activations and the walk from token ids to one vector per text. Used
// by the thread that owns the stream. Life: construct, load_weight for every name of weight_names(), finish_loading,
// then encode.
class TextEncoder {
 public:
  using Text = std::vector<int32_t>;

  // Throws kInvalidArgument for a config that is inconsistent, kUnsupported for one that needs what the backend lacks.
  TextEncoder(TextEncoderConfig config, TextEncoderOptions options, const Device& device, Stream& stream);
  ~TextEncoder();
  TextEncoder(const TextEncoder&) = delete;
  TextEncoder& operator=(const TextEncoder&) = delete;

  // Every canonical name, sorted; all begin with "encoder.".
  std::vector<std::string> weight_names() const;
  // As Decoder::load_weight.
  void load_weight(const WeightSource& source);
  // Checks that nothing is missing and reserves activations and inputs for the largest call.
  void finish_loading();

  // out: host [texts.size(), hidden_size], a vector of length 1 per text. The texts are valid ones (of 1 to
  // max_text_len ids of the vocabulary), of at most max_tokens tokens in all. Returns when out is written.
  void encode(std::span<const Text> texts, float* out);

  size_t weight_bytes() const;
  // Device bytes of activations, inputs and workspace; valid after finish_loading().
  size_t activation_bytes() const;
  const TextEncoderConfig& config() const;
  const TextEncoderOptions& options() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbomind
