// SPDX-License-Identifier: Apache-2.0
//
// An engine on the null plug-in, and what its answers must be. With the setting tokens=context each token is a hash of
// every token before it as the block tables make the KV pools show them: a wrong block, a lost write, a stale plan or a
// token fed to the wrong row changes the answer.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine_driver.h"
#include "support/null_backend.h"

namespace turbomind::test {

inline constexpr int32_t kVocab = 997;
inline constexpr int32_t kContextLength = 512;

// One layer, whose dimensions the null plug-in does not look at.
inline DecoderConfig null_model() {
  DecoderConfig model;
  model.architecture = "null";
  model.vocab_size = kVocab;
  model.hidden_size = 8;
  model.context_length = kContextLength;
  model.norm_eps = 1e-6F;
  model.tie_word_embeddings = true;
  model.ropes = {{.dim = 4, .inv_freq = {1.0, 0.1}}};
  model.layers = {{.attention = {.num_heads = 2, .num_kv_heads = 2, .head_dim = 4, .scale = 0.5F},
                   .ffn = {.intermediate_size = 16}}};
  return model;
}

inline EngineOptions null_options(std::map<std::string, std::string> backend_config = {{"tokens", "context"}}) {
  EngineOptions options;
  options.backend = "null";
  options.plugin_paths = {TM_PLUGIN_NULL};
  options.block_size = 16;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 64;
  options.num_kv_blocks = 256;
  options.backend_config = std::move(backend_config);
  return options;
}

inline std::vector<WeightSource> null_checkpoint() {
  // Neighbours of one format are packed into one matrix, of which the null plug-in fills the first column only.
  const std::vector<std::pair<std::string, std::pair<int64_t, int64_t>>> shapes = {
      {"embed_tokens", {kVocab, 8}}, {"final_norm", {8, 1}},          {"layers.0.attn_norm", {8, 1}},
      {"layers.0.q_proj", {8, 8}},   {"layers.0.k_proj", {8, 8}},     {"layers.0.v_proj", {8, 8}},
      {"layers.0.o_proj", {8, 8}},   {"layers.0.ffn_norm", {8, 1}},   {"layers.0.gate_proj", {16, 8}},
      {"layers.0.up_proj", {16, 8}}, {"layers.0.down_proj", {8, 16}},
  };
  static const std::vector<float> zeros(static_cast<size_t>(kVocab) * 8, 0.0F);
  std::vector<WeightSource> checkpoint;
  for (const auto& [name, shape] : shapes) {
    const bool half = name == "layers.0.k_proj" || name == "layers.0.up_proj";
    WeightSource source;
    source.name = name;
    source.format = half ? TM_WEIGHT_F16 : TM_WEIGHT_F32;
    source.rows = shape.first;
    source.cols = shape.second;
    source.data = zeros.data();
    source.bytes = static_cast<size_t>(shape.first * shape.second) * (half ? 2 : 4);
    checkpoint.push_back(std::move(source));
  }
  return checkpoint;
}

// The null plug-in's hash, written down again from its description.
class Prediction {
 public:
  explicit Prediction(const std::vector<int32_t>& prompt) {
    for (const int32_t token : prompt) append(token);
  }

  // The greedy token after what was appended so far.
  int32_t next() const { return static_cast<int32_t>(mix(number_, 0) % kVocab); }
  // The token drawn at the next position with that seed.
  int32_t next(uint64_t seed) const { return static_cast<int32_t>(mix(number_, mix(seed, length_)) % kVocab); }

  void append(int32_t token) {
    // Embedding, attention over all tokens so far, residual, gated feed-forward, residual.
    const auto id = static_cast<uint64_t>(token);
    context_ = mix(context_, id) >> 40;
    const uint64_t residual = mix(context_, id) >> 40;
    number_ = mix(mix(residual, residual) >> 40, residual) >> 40;
    ++length_;
  }

 private:
  static uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t x = a * 0x9E3779B97F4A7C15U + b + 0x9E3779B97F4A7C15U;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9U;
    x = (x ^ x >> 27) * 0x94D049BB133111EBU;
    return x ^ x >> 31;
  }

  uint64_t context_ = 0;
  uint64_t number_ = 0;
  uint64_t length_ = 0;
};

inline std::vector<int32_t> predict(const std::vector<int32_t>& prompt, int64_t count) {
  Prediction prediction(prompt);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(prediction.next());
    prediction.append(tokens.back());
  }
  return tokens;
}

inline std::vector<int32_t> predict_sampled(const std::vector<int32_t>& prompt, int64_t count, uint64_t seed) {
  Prediction prediction(prompt);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(prediction.next(seed));
    prediction.append(tokens.back());
  }
  return tokens;
}

// count tokens of a pseudo-random prompt; the same seed gives the same prefix.
inline std::vector<int32_t> make_prompt(int64_t count, uint32_t seed) {
  std::vector<int32_t> prompt;
  uint32_t state = seed * 2654435761U + 1;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525U + 1013904223U;
    prompt.push_back(static_cast<int32_t>((state >> 8) % kVocab));
  }
  return prompt;
}

// Constructed before the engine opens the plug-in: forgets earlier counts and faults.
struct NullHooks {
  NullBackend null{TM_PLUGIN_NULL};
};

// A started engine on the null plug-in.
class EngineFixture : public NullHooks, public EngineDriver {
 public:
  explicit EngineFixture(const EngineOptions& options) : EngineDriver(null_model(), options, null_checkpoint()) {}
};

}  // namespace turbomind::test
