// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/embedder.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "config.h"
#include "weights.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace turbomind::bindings {
namespace {

TextEncoderConfig text_encoder_config(const py::object& source) {
  TextEncoderConfig config;
  config.vocab_size = source.attr("vocab_size").cast<int32_t>();
  config.hidden_size = source.attr("hidden_size").cast<int32_t>();
  config.num_layers = source.attr("num_layers").cast<int32_t>();
  config.num_heads = source.attr("num_heads").cast<int32_t>();
  config.intermediate_size = source.attr("intermediate_size").cast<int32_t>();
  config.max_positions = source.attr("max_positions").cast<int32_t>();
  config.norm_eps = source.attr("norm_eps").cast<float>();
  config.activation = activation_kind(source.attr("activation").cast<std::string>(), "activation");
  config.pools_first = source.attr("pools_first").cast<bool>();
  return config;
}

void load_weight(Embedder& embedder, const std::string& name, const std::string& format,
                 const std::vector<int64_t>& shape, const py::buffer& data) {
  const WeightSource source = weight_source(name, format, shape, data);
  const py::gil_scoped_release release;
  embedder.load_weight(source);
}

py::array_t<float> embed(Embedder& embedder, const std::vector<std::vector<int32_t>>& texts) {
  const auto rows = static_cast<py::ssize_t>(texts.size());
  py::array_t<float> out({rows, static_cast<py::ssize_t>(embedder.config().hidden_size)});
  float* data = out.mutable_data();
  const py::gil_scoped_release release;
  embedder.embed(texts, data);
  return out;
}

py::dict start(Embedder& embedder) {
  const EmbedderMemory memory = [&] {
    const py::gil_scoped_release release;
    return embedder.start();
  }();
  return py::dict("weight_bytes"_a = memory.weight_bytes, "activation_bytes"_a = memory.activation_bytes,
                  "on_host"_a = memory.on_host);
}

}  // namespace

void bind_embedder(py::module_& module) {
  py::class_<Embedder>(module, "Embedder")
      .def(py::init([](const py::object& model, const EngineOptions& options) {
             TextEncoderConfig config = text_encoder_config(model);
             const py::gil_scoped_release release;
             return std::make_unique<Embedder>(std::move(config), options);
           }),
           "model"_a, "options"_a)
      .def("load_weight", &load_weight, "name"_a, "format"_a, "shape"_a, "data"_a)
      .def("start", &start)
      .def("embed", &embed, "texts"_a)
      .def_property_readonly("max_text_len", &Embedder::max_text_len)
      .def_property_readonly("max_tokens", &Embedder::max_tokens)
      .def_property_readonly("num_recoveries", &Embedder::num_recoveries)
      .def_property_readonly("is_lost", &Embedder::is_lost);
}

}  // namespace turbomind::bindings
