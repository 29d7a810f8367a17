// SPDX-License-Identifier: Apache-2.0
#include "vision/encoder/encoder_config.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

template <class Value>
void require(bool condition, const std::string& field, const char* expected, const Value& found) {
  check(condition, ErrorCode::kInvalidArgument, "vision.", field, ": expected ", expected, ", found ", found);
}

void require_positive(const std::string& field, int64_t value) {
  require(value > 0, field, "a positive number", value);
}

void require_layers(const std::string& field, const std::vector<int32_t>& layers, int32_t num_layers) {
  for (const int32_t layer : layers) {
    require(layer >= 0 && layer < num_layers, field, "layers of the encoder", layer);
  }
  require(std::is_sorted(layers.begin(), layers.end()), field, "layers in ascending order", "others");
}

void validate(const std::string& path, const ProjectorConfig& config) {
  require(config.merge_size > 0 && config.merge_size <= 1024, path + "merge_size", "a number in [1, 1024]",
          config.merge_size);
  require(std::isfinite(config.norm_eps) && config.norm_eps >= 0, path + "norm_eps", "a finite number >= 0",
          config.norm_eps);
  require(config.hidden_size >= 0, path + "hidden_size", "a size >= 0", config.hidden_size);
}

void validate(const RopeConfig& rope, int64_t head_dim) {
  require(rope.dim == head_dim && head_dim % 2 == 0, "rope.dim", "the head size, an even number", rope.dim);
  require(rope.inv_freq.size() == static_cast<size_t>(rope.dim / 2), "rope.inv_freq", "dim / 2 values",
          rope.inv_freq.size());
  const auto [none, row, column] = rope.mrope_section;
  require(none == 0 && row > 0 && row + column == rope.dim / 2, "rope.mrope_section", "none, rows and columns", row);
}

}  // namespace

bool EncoderConfig::is_full(int32_t layer) const {
  return !has_windows() || std::find(full_layers.begin(), full_layers.end(), layer) != full_layers.end();
}

void validate(const EncoderConfig& config) {
  require_positive("patch_dim", config.patch_dim);
  require_positive("hidden_size", config.hidden_size);
  require_positive("num_layers", config.num_layers);
  require_positive("num_heads", config.num_heads);
  require_positive("intermediate_size", config.intermediate_size);
  require_positive("out_hidden_size", config.out_hidden_size);
  require(config.hidden_size % config.num_heads == 0, "hidden_size", "a multiple of num_heads", config.hidden_size);
  require(std::isfinite(config.norm_eps) && config.norm_eps >= 0, "norm_eps", "a finite number >= 0", config.norm_eps);
  require(config.table_rows >= 0, "table_rows", "a count >= 0", config.table_rows);
  if (config.rope) validate(*config.rope, config.hidden_size / config.num_heads);
  require_layers("full_layers", config.full_layers, config.num_layers);
  require_layers("deepstack_layers", config.deepstack_layers, config.num_layers);
  validate("projector.", config.projector);
  validate("deepstack.", config.deepstack);
  require(config.deepstack_layers.empty() || config.deepstack.merge_size == config.projector.merge_size,
          "deepstack.merge_size", "the projector's", config.deepstack.merge_size);
  require(!config.newline || config.deepstack_layers.empty(), "newline", "none beside deepstack layers", "one");
}

}  // namespace turbomind
