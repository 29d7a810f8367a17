// SPDX-License-Identifier: Apache-2.0
#include "model/tiny_model.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>

namespace turbomind::test {
namespace {

constexpr int64_t kQ8Block = 32;

// Draws weights and stores each both ways.
class Builder {
 public:
  Builder(TinyModel& model, MatrixFormats formats) : model_(model), formats_(formats) {}

  void add_all() {
    const DecoderConfig& config = model_.config;
    matrix("embed_tokens", config.vocab_size, config.hidden_size);
    vector("final_norm", config.hidden_size, 1);
    if (!config.tie_word_embeddings) matrix("lm_head", config.vocab_size, config.hidden_size);
    for (size_t i = 0; i < config.layers.size(); ++i) {
      add_layer("layers." + std::to_string(i) + ".", config.layers[i]);
    }
  }

 private:
  void add_layer(const std::string& prefix, const LayerConfig& layer) {
    const AttentionConfig& attention = layer.attention;
    const int64_t hidden = model_.config.hidden_size;
    const int64_t q_rows = int64_t{attention.num_heads} * attention.head_dim;
    const int64_t kv_rows = int64_t{attention.num_kv_heads} * attention.head_dim;
    linear(prefix + "q_proj", q_rows, hidden, attention.qkv_bias);
    linear(prefix + "k_proj", kv_rows, hidden, attention.qkv_bias);
    linear(prefix + "v_proj", kv_rows, hidden, attention.qkv_bias);
    linear(prefix + "o_proj", hidden, q_rows, attention.o_bias);
    linear(prefix + "gate_proj", layer.ffn.intermediate_size, hidden, layer.ffn.bias);
    linear(prefix + "up_proj", layer.ffn.intermediate_size, hidden, layer.ffn.bias);
    linear(prefix + "down_proj", hidden, layer.ffn.intermediate_size, layer.ffn.bias);
    vector(prefix + "attn_norm", hidden, 1);
    vector(prefix + "ffn_norm", hidden, 1);
    if (layer.post_attention_norm) vector(prefix + "post_attn_norm", hidden, 1);
    if (layer.post_ffn_norm) vector(prefix + "post_ffn_norm", hidden, 1);
    if (attention.qk_norm) {
      vector(prefix + "q_norm", attention.head_dim, 1);
      vector(prefix + "k_norm", attention.head_dim, 1);
    }
  }

  void linear(const std::string& name, int64_t rows, int64_t cols, bool bias) {
    matrix(name, rows, cols);
    if (bias) vector(name + ".bias", rows, 0);
  }

  void matrix(const std::string& name, int64_t rows, int64_t cols) {
    const double deviation = 1 / std::sqrt(static_cast<double>(cols));
    const tm_weight_format format = next_format(name);
    if (format == TM_WEIGHT_GGUF_Q8_0) {
      q8_matrix(name, rows, cols, deviation);
    } else {
      float_tensor(name, rows, cols, format, 0, deviation);
    }
  }

  void vector(const std::string& name, int64_t size, double mean) {
    float_tensor(name, size, 1, TM_WEIGHT_F32, mean, 0.2);
  }

  // q and k share a format, v has another; the others vary with their number.
  tm_weight_format next_format(const std::string& name) {
    if (formats_ == MatrixFormats::kF32) return TM_WEIGHT_F32;
    if (name.ends_with("q_proj") || name.ends_with("k_proj")) return TM_WEIGHT_GGUF_Q8_0;
    if (name.ends_with("v_proj")) return TM_WEIGHT_BF16;
    static constexpr tm_weight_format kFormats[] = {TM_WEIGHT_BF16, TM_WEIGHT_GGUF_Q8_0, TM_WEIGHT_F32};
    return kFormats[model_.checkpoint.size() % 3];
  }

  // f32, or bf16 by cutting the low bits off.
  void float_tensor(const std::string& name, int64_t rows, int64_t cols, tm_weight_format format, double mean,
                    double deviation) {
    const size_t size = format == TM_WEIGHT_F32 ? 4 : 2;
    auto bytes = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(rows * cols) * size);
    Row values;
    for (int64_t i = 0; i < rows * cols; ++i) {
      auto bits = std::bit_cast<uint32_t>(static_cast<float>(mean + deviation * normal_(random_)));
      if (size == 2) bits &= 0xFFFF0000;
      values.push_back(std::bit_cast<float>(bits));
      if (size == 2) bits >>= 16;
      std::memcpy(bytes->data() + static_cast<size_t>(i) * size, &bits, size);  // little endian
    }
    store(name, rows, cols, format, bytes, values);
  }

  // Blocks of an f16 scale and 32 int8 codes; the scales are powers of two, so that their bits are plain.
  void q8_matrix(const std::string& name, int64_t rows, int64_t cols, double deviation) {
    auto bytes = std::make_shared<std::vector<uint8_t>>();
    Row values;
    const int exponent = static_cast<int>(std::lround(std::log2(deviation / 64)));
    for (int64_t block = 0; block < rows * cols / kQ8Block; ++block) {
      const int block_exponent = exponent + static_cast<int>(random_() % 2);
      const auto f16 = static_cast<uint16_t>((block_exponent + 15) << 10);
      bytes->push_back(static_cast<uint8_t>(f16 & 255));
      bytes->push_back(static_cast<uint8_t>(f16 >> 8));
      for (int64_t i = 0; i < kQ8Block; ++i) {
        const auto code = static_cast<int8_t>(static_cast<int>(random_() % 255) - 127);
        bytes->push_back(static_cast<uint8_t>(code));
        values.push_back(std::ldexp(code, block_exponent));
      }
    }
    store(name, rows, cols, TM_WEIGHT_GGUF_Q8_0, bytes, values);
  }

  void store(const std::string& name, int64_t rows, int64_t cols, tm_weight_format format,
             const std::shared_ptr<std::vector<uint8_t>>& bytes, const Row& values) {
    model_.reference[name] = values;
    model_.checkpoint.push_back({.name = name,
                                 .format = format,
                                 .rows = rows,
                                 .cols = cols,
                                 .data = bytes->data(),
                                 .bytes = bytes->size(),
                                 .owner = bytes});
  }

  TinyModel& model_;
  MatrixFormats formats_;
  std::mt19937_64 random_{20240607};
  std::normal_distribution<double> normal_;
};

RopeConfig rope(int32_t dim, double theta) {
  RopeConfig config{.dim = dim};
  for (int32_t i = 0; i < dim / 2; ++i) config.inv_freq.push_back(std::pow(theta, -2.0 * i / dim));
  return config;
}

LayerConfig base_layer() {
  LayerConfig layer;
  layer.attention = {.num_heads = 4, .num_kv_heads = 2, .head_dim = 32, .scale = 0.176776695F};
  layer.ffn = {.intermediate_size = 192, .activation = TM_ACTIVATION_SILU};
  return layer;
}

DecoderConfig base_config(const std::string& architecture) {
  DecoderConfig config;
  config.architecture = architecture;
  config.vocab_size = 96;
  config.hidden_size = 64;
  config.context_length = 256;
  config.norm_eps = 1e-5F;
  config.ropes = {rope(32, 10000)};
  config.layers.assign(3, base_layer());
  return config;
}

TinyModel build(const std::string& name, DecoderConfig config, MatrixFormats formats = MatrixFormats::kF32) {
  TinyModel model{.name = name, .config = std::move(config)};
  Builder(model, formats).add_all();
  return model;
}

}  // namespace

TinyModel tiny_llama(MatrixFormats formats) {
  DecoderConfig config = base_config("llama");
  config.tie_word_embeddings = true;
  return build(formats == MatrixFormats::kF32 ? "llama" : "llama, mixed formats", config, formats);
}

TinyModel tiny_qwen2() {
  DecoderConfig config = base_config("qwen2");
  config.vocab_size = 99;
  for (LayerConfig& layer : config.layers) layer.attention.qkv_bias = true;
  return build("qwen2", config);
}

TinyModel tiny_qwen3() {
  DecoderConfig config = base_config("qwen3");
  config.ropes = {rope(32, 1e6)};
  for (LayerConfig& layer : config.layers) layer.attention.qk_norm = true;
  return build("qwen3", config);
}

TinyModel tiny_gemma3() {
  DecoderConfig config = base_config("gemma3");
  config.tie_word_embeddings = true;
  config.embed_scale = 8.0F;
  config.ropes = {rope(32, 10000), rope(32, 1e6)};
  config.layers.assign(4, base_layer());
  for (size_t i = 0; i < config.layers.size(); ++i) {
    LayerConfig& layer = config.layers[i];
    const bool global = i % 3 == 2;
    layer.attention.num_kv_heads = 1;
    layer.attention.qk_norm = true;
    layer.attention.window = global ? 0 : 7;
    layer.attention.rope = global ? 1 : 0;
    layer.ffn.activation = TM_ACTIVATION_GELU_TANH;
    layer.post_attention_norm = layer.post_ffn_norm = true;
  }
  return build("gemma3", config);
}

TinyModel tiny_medley() {
  DecoderConfig config = base_config("medley");
  config.ropes = {rope(16, 10000)};
  config.ropes[0].style = TM_ROPE_INTERLEAVED;
  config.ropes[0].attention_factor = 1.25;
  config.logit_softcap = 2.0F;
  for (LayerConfig& layer : config.layers) {
    layer.attention.qkv_bias = layer.attention.o_bias = layer.ffn.bias = true;
    layer.attention.softcap = 1.5F;
    layer.attention.num_kv_heads = layer.attention.num_heads;
  }
  return build("medley", config);
}

std::vector<int32_t> random_tokens(const DecoderConfig& config, int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(config.vocab_size)));
  }
  return tokens;
}

}  // namespace turbomind::test
