// SPDX-License-Identifier: Apache-2.0
#include "media.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "config.h"
#include "turbomind/core/error.h"

namespace py = pybind11;

namespace turbomind::bindings {
namespace {

template <class T>
T field(const py::handle& source, const char* name) {
  return source.attr(name).cast<T>();
}

NormKind norm_kind(const py::handle& source) {
  return field<std::string>(source, "norm_kind") == "rms_norm" ? NormKind::kRmsNorm : NormKind::kLayerNorm;
}

ProjectorConfig projector_config(const py::handle& source) {
  ProjectorConfig config;
  config.merge_size = field<int32_t>(source, "merge_size");
  config.average = field<bool>(source, "average");
  config.norm = field<bool>(source, "norm");
  config.norm_after_merge = field<bool>(source, "norm_after_merge");
  config.norm_kind = norm_kind(source);
  config.norm_eps = field<float>(source, "norm_eps");
  config.hidden_size = field<int32_t>(source, "hidden_size");
  config.activation = activation_kind(field<std::string>(source, "activation"), "vision.projector.activation");
  config.bias = field<bool>(source, "bias");
  return config;
}

// A contiguous array of T as a vector; nothing for None. Throws kInvalidArgument for other element types.
template <class T>
std::vector<T> values(const py::handle& source, const char* name) {
  const py::object array = source.attr(name);
  if (array.is_none()) return {};
  check(py::isinstance<py::array_t<T, py::array::c_style>>(array), ErrorCode::kInvalidArgument, "media.", name,
        ": expected a contiguous array of ", std::is_same_v<T, float> ? "float32" : "int32", ", found another object");
  const auto typed = py::reinterpret_borrow<py::array_t<T, py::array::c_style>>(array);
  const T* const begin = typed.data();
  const T* const end = begin + typed.size();
  const py::gil_scoped_release release;  // pixels are many megabytes
  return {begin, end};
}

WeightedRows weighted_rows(const py::handle& source, const char* name) {
  const py::object rows = source.attr(name);
  if (rows.is_none()) return {};
  const auto shape = field<std::vector<int64_t>>(rows.attr("rows"), "shape");
  check(shape.size() == 2, ErrorCode::kInvalidArgument, "media.", name, ": expected rows of 2 dimensions, found ",
        shape.size());
  return {.width = static_cast<int32_t>(shape[1]),
          .rows = values<int32_t>(rows, "rows"),
          .weights = values<float>(rows, "weights")};
}

std::shared_ptr<const EncoderItem> encoder_item(const py::handle& source) {
  auto item = std::make_shared<EncoderItem>();
  item->digest = field<std::string>(source, "digest");
  item->num_tokens = field<int64_t>(source, "num_tokens");
  const auto shape = field<std::vector<int64_t>>(source.attr("pixels"), "shape");
  auto pixels = std::make_shared<const std::vector<float>>(values<float>(source, "pixels"));
  item->num_rows = shape.empty() ? 0 : shape.front();
  item->pixels = pixels->data();
  item->pixel_bytes = pixels->size() * sizeof(float);
  item->owner = std::move(pixels);
  item->segments = values<int32_t>(source, "segments");
  item->windows = values<int32_t>(source, "windows");
  item->positions = values<int32_t>(source, "positions");
  item->table = weighted_rows(source, "table");
  item->merge = values<int32_t>(source, "merge");
  item->output = weighted_rows(source, "output");
  return item;
}

}  // namespace

std::optional<EncoderConfig> encoder_config(const py::object& source) {
  if (source.is_none()) return std::nullopt;
  EncoderConfig config;
  config.patch_dim = field<int32_t>(source, "patch_dim");
  config.hidden_size = field<int32_t>(source, "hidden_size");
  config.num_layers = field<int32_t>(source, "num_layers");
  config.num_heads = field<int32_t>(source, "num_heads");
  config.intermediate_size = field<int32_t>(source, "intermediate_size");
  config.out_hidden_size = field<int32_t>(source, "out_hidden_size");
  config.norm_kind = norm_kind(source);
  config.norm_eps = field<float>(source, "norm_eps");
  config.activation = activation_kind(field<std::string>(source, "activation"), "vision.activation");
  config.gated = field<bool>(source, "gated");
  config.patch_bias = field<bool>(source, "patch_bias");
  config.qkv_bias = field<bool>(source, "qkv_bias");
  config.o_bias = field<bool>(source, "o_bias");
  config.ffn_bias = field<bool>(source, "ffn_bias");
  config.pre_norm = field<bool>(source, "pre_norm");
  config.post_norm = field<bool>(source, "post_norm");
  config.qk_norm = field<bool>(source, "qk_norm");
  config.table_rows = field<int32_t>(source, "table_rows");
  if (const py::object rope = source.attr("rope"); !rope.is_none()) config.rope = rope_config(rope);
  config.full_layers = field<std::vector<int32_t>>(source, "full_layers");
  config.projector = projector_config(source.attr("projector"));
  config.deepstack_layers = field<std::vector<int32_t>>(source, "deepstack_layers");
  config.deepstack = projector_config(source.attr("deepstack"));
  config.newline = field<bool>(source, "newline");
  return config;
}

MediaInput media_input(const py::object& source) {
  MediaInput media;
  if (source.is_none()) return media;
  for (const py::handle span : source.attr("spans")) {
    media.spans.push_back({field<int64_t>(span, "begin"), encoder_item(span.attr("item"))});
  }
  media.positions = values<int32_t>(source, "positions");
  return media;
}

}  // namespace turbomind::bindings
