// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bindings.h"
#include "turbomind/text/spm_model.h"
#include "turbomind/text/string_table.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace turbomind::bindings {
namespace {

// The bytes of a buffer, which must outlive them. Throws kInvalidArgument if they do not stand back to back.
std::span<const uint8_t> bytes_of(py::buffer_info& info, const char* name) {
  check(PyBuffer_IsContiguous(info.view(), 'C') != 0, ErrorCode::kInvalidArgument, name,
        ": expected contiguous memory, found steps between its items");
  return {static_cast<const uint8_t*>(info.ptr), static_cast<size_t>(info.size * info.itemsize)};
}

py::str text_of(std::string_view text) { return {text.data(), text.size()}; }

std::shared_ptr<StringTable> make_table(const py::buffer& data, size_t count) {
  py::buffer_info info = data.request();
  return std::make_shared<StringTable>(bytes_of(info, "data"), count);
}

py::str string_at(const StringTable& table, py::ssize_t id) {
  if (id < 0 || static_cast<size_t>(id) >= table.size()) throw py::index_error();
  return text_of(table[static_cast<size_t>(id)]);
}

py::list all_strings(const StringTable& table) {
  py::list strings(table.size());
  for (size_t id = 0; id < table.size(); ++id) strings[id] = text_of(table[id]);
  return strings;
}

std::optional<int32_t> find(const StringTable& table, std::string_view text) {
  const int32_t id = table.find(text);
  return id == StringTable::kNone ? std::nullopt : std::optional(id);
}

// scores: one float32 for each piece. byte_ids: of all 256 bytes, or none.
std::shared_ptr<SpmModel> make_spm_model(const std::shared_ptr<StringTable>& pieces, const py::buffer& scores,
                                         const std::vector<int32_t>& apart, const std::vector<int32_t>& byte_ids,
                                         std::optional<int32_t> unknown_id) {
  py::buffer_info info = scores.request();
  check(info.format == py::format_descriptor<float>::format(), ErrorCode::kInvalidArgument,
        "scores: expected float32, found format '", info.format, "'");
  check(byte_ids.empty() || byte_ids.size() == 256, ErrorCode::kInvalidArgument,
        "byte_ids: expected none or 256, found ", byte_ids.size());
  std::vector<float> values(static_cast<size_t>(info.size));
  // As bytes, since a file's column may be unaligned.
  std::ranges::copy(bytes_of(info, "scores"), reinterpret_cast<uint8_t*>(values.data()));
  SpmModel::Fallback fallback{std::nullopt, unknown_id};
  if (!byte_ids.empty()) std::ranges::copy(byte_ids, fallback.bytes.emplace().begin());
  return std::make_shared<SpmModel>(pieces, std::move(values), apart, fallback);
}

}  // namespace

void bind_text(py::module_& module) {
  module.def(
      "measure_strings",
      [](const py::buffer& data, size_t count) {
        py::buffer_info info = data.request();
        const StringExtent extent = measure_strings(bytes_of(info, "data"), count);
        return py::make_tuple(extent.strings, extent.bytes);
      },
      "data"_a, "count"_a);
  py::class_<StringTable, std::shared_ptr<StringTable>>(module, "StringTable")
      .def(py::init(&make_table), "data"_a, "count"_a)
      .def("__len__", &StringTable::size)
      .def("__getitem__", &string_at, "id"_a)
      .def("find", &find, "text"_a)
      .def("tolist", &all_strings);
  py::class_<SpmModel, std::shared_ptr<SpmModel>>(module, "SpmModel")
      .def(py::init(&make_spm_model), "pieces"_a.none(false), "scores"_a, "apart"_a, "byte_ids"_a, "unknown_id"_a)
      .def("encode", &SpmModel::encode, "text"_a, py::call_guard<py::gil_scoped_release>());
}

}  // namespace turbomind::bindings
