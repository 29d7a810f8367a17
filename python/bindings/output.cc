// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "turbomind/engine/request.h"
#include "turbomind/engine/stats.h"

namespace py = pybind11;

namespace turbomind::bindings {
namespace {

// [rows, cols] float32 over the block's own memory, which moves into the array; numpy offers it by DLPack. None if
// empty.
py::object take_rows(RowBlock& block) {
  if (block.values.empty()) return py::none();
  auto owner = std::make_unique<std::vector<float>>(std::move(block.values));
  float* data = owner->data();
  const auto rows = static_cast<py::ssize_t>(owner->size()) / block.cols;
  const py::capsule base(owner.release(), [](void* values) { delete static_cast<std::vector<float>*>(values); });
  return py::array_t<float>({rows, static_cast<py::ssize_t>(block.cols)}, data, base);
}

// One list per position: (token id, log probability), the chosen token first, then its alternatives.
py::list logprob_rows(const std::vector<PositionLogprobs>& positions) {
  py::list rows;
  for (const PositionLogprobs& position : positions) {
    py::list row;
    row.append(py::make_tuple(position.token.token_id, position.token.logprob));
    for (const TokenLogprob& top : position.top) row.append(py::make_tuple(top.token_id, top.logprob));
    rows.append(row);
  }
  return rows;
}

py::object error(const Output& output) {
  if (!output.error_code) return py::none();
  return make_python_error(*output.error_code, output.error_message);
}

void bind_times(py::module_& module) {
  py::class_<RequestTimes>(module, "RequestTimes")
      .def_readonly("arrival", &RequestTimes::arrival)
      .def_readonly("first_scheduled", &RequestTimes::first_scheduled)
      .def_readonly("first_token", &RequestTimes::first_token)
      .def_readonly("finish", &RequestTimes::finish);
}

}  // namespace

void bind_output(py::module_& module) {
  bind_times(module);
  py::class_<Output>(module, "Output")
      .def_readonly("request_id", &Output::request_id)
      .def_readonly("index", &Output::index)
      .def_readonly("token_ids", &Output::token_ids)
      .def_property_readonly("logprobs", [](const Output& self) { return logprob_rows(self.logprobs); })
      .def_property_readonly("prompt_logprobs", [](const Output& self) { return logprob_rows(self.prompt_logprobs); })
      .def_readonly("finished", &Output::finished)
      .def_property_readonly("finish_reason", [](const Output& self) { return to_string(self.finish_reason); })
      .def_readonly("stop_token_id", &Output::stop_token_id)
      .def_property_readonly("error", &error)
      .def_readonly("prompt_tokens", &Output::prompt_tokens)
      .def_readonly("cached_tokens", &Output::cached_tokens)
      .def_readonly("preemptions", &Output::preemptions)
      .def_readonly("times", &Output::times)
      .def("take_logits", [](Output& self) { return take_rows(self.logits); })
      .def("take_last_hidden_state", [](Output& self) { return take_rows(self.last_hidden_state); });
}

}  // namespace turbomind::bindings
