// SPDX-License-Identifier: Apache-2.0
#include "turbomind/models/decoder_config.h"

#include <cmath>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

// Checks of the fields of one part of the config; "layers[3].attention.num_heads: expected ..., found ...".
class FieldCheck {
 public:
  explicit FieldCheck(std::string path) : path_(std::move(path)) {}

  template <class Value>
  void require(bool condition, const char* field, const char* expected, const Value& found) const {
    check(condition, ErrorCode::kInvalidArgument, path_, field, ": expected ", expected, ", found ", found);
  }
  void positive(const char* field, int64_t value) const { require(value > 0, field, "a positive number", value); }
  // A magnitude: finite and at least 0.
  void magnitude(const char* field, double value) const {
    require(std::isfinite(value) && value >= 0, field, "a finite number >= 0", value);
  }

 private:
  std::string path_;
};

void validate(const RopeConfig& rope, const FieldCheck& field) {
  field.require(rope.dim > 0 && rope.dim % 2 == 0, "dim", "a positive even number", rope.dim);
  field.require(rope.inv_freq.size() == static_cast<size_t>(rope.dim / 2), "inv_freq", "dim / 2 values",
                rope.inv_freq.size());
  for (const double frequency : rope.inv_freq) field.magnitude("inv_freq", frequency);
  field.magnitude("attention_factor", rope.attention_factor);
  const auto [time, height, width] = rope.mrope_section;
  const bool sections =
      time >= 0 && height >= 0 && width >= 0 && (!rope.has_axes() || time + height + width == rope.dim / 2);
  field.require(sections, "mrope_section", "counts that add up to dim / 2, or none", time);
}

void validate(const AttentionConfig& attention, const std::vector<RopeConfig>& ropes, const FieldCheck& field) {
  field.positive("num_heads", attention.num_heads);
  field.positive("num_kv_heads", attention.num_kv_heads);
  field.require(attention.num_heads % attention.num_kv_heads == 0, "num_heads", "a multiple of num_kv_heads",
                attention.num_heads);
  field.positive("head_dim", attention.head_dim);
  field.require(std::isfinite(attention.scale) && attention.scale > 0, "scale", "a positive number", attention.scale);
  field.require(attention.window >= 0, "window", "a length >= 0", attention.window);
  field.magnitude("softcap", attention.softcap);
  const bool known_rope = attention.rope >= 0 && static_cast<size_t>(attention.rope) < ropes.size();
  field.require(known_rope, "rope", "an index into ropes", attention.rope);
  const int32_t rotated = ropes[static_cast<size_t>(attention.rope)].dim;
  field.require(rotated <= attention.head_dim, "rope", "one of at most head_dim dimensions", rotated);
}

void validate(const FfnConfig& ffn, const FieldCheck& field) {
  field.positive("intermediate_size", ffn.intermediate_size);
  field.require(ffn.activation >= TM_ACTIVATION_NONE && ffn.activation <= TM_ACTIVATION_RELU, "activation",
                "a tm_activation_kind", static_cast<int>(ffn.activation));
}

}  // namespace

void validate(const DecoderConfig& config) {
  const FieldCheck field("");
  field.positive("vocab_size", config.vocab_size);
  field.positive("hidden_size", config.hidden_size);
  field.positive("context_length", config.context_length);
  field.magnitude("norm_eps", config.norm_eps);
  field.require(std::isfinite(config.embed_scale), "embed_scale", "a finite number", config.embed_scale);
  field.magnitude("logit_softcap", config.logit_softcap);
  field.require(!config.layers.empty(), "layers", "at least one", 0);
  for (size_t i = 0; i < config.ropes.size(); ++i) {
    validate(config.ropes[i], FieldCheck("ropes[" + std::to_string(i) + "]."));
  }
  for (const RopeConfig& rope : config.ropes) {
    field.require(rope.has_axes() == config.ropes.front().has_axes(), "ropes", "all or none with axes", "some");
  }
  field.require(config.num_deepstack >= 0 && config.num_deepstack <= static_cast<int32_t>(config.layers.size()),
                "num_deepstack", "at most the number of layers", config.num_deepstack);
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const std::string path = "layers[" + std::to_string(i) + "].";
    validate(config.layers[i].attention, config.ropes, FieldCheck(path + "attention."));
    validate(config.layers[i].ffn, FieldCheck(path + "ffn."));
  }
}

}  // namespace turbomind
