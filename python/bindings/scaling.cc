// SPDX-License-Identifier: Apache-2.0
#include "vision/scaling/scaling.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "bindings.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace turbomind::bindings {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
using Image = Array<uint8_t>;

// image: [height, width, 3]; axis 0 scales the height, 1 the width.
Image scale_axis(const Image& image, int axis, const Array<int32_t>& first, const Array<int32_t>& count,
                 const Array<int16_t>& weights, int32_t bits) {
  check(image.ndim() == 3 && image.shape(2) == 3 && (axis == 0 || axis == 1), ErrorCode::kInvalidArgument,
        "image: expected uint8 [height, width, 3] and axis 0 or 1");
  const auto size = [](const auto& array) { return static_cast<size_t>(array.size()); };
  const vision::FixedPointFilter filter{
      {first.data(), size(first)}, {count.data(), size(count)}, {weights.data(), size(weights)}, bits};
  vision::check_filter(filter, image.shape(axis));
  const py::ssize_t height = image.shape(0);
  const py::ssize_t width = image.shape(1);
  Image out(axis == 0 ? Image::ShapeContainer{first.size(), width, py::ssize_t{3}}
                      : Image::ShapeContainer{height, first.size(), py::ssize_t{3}});
  const uint8_t* from = image.data();
  uint8_t* to = out.mutable_data();
  const py::gil_scoped_release release;
  if (axis == 0) {
    vision::scale_rows(filter, from, width, to);
  } else {
    vision::scale_columns(filter, from, height, width, to);
  }
  return out;
}

}  // namespace

void bind_scaling(py::module_& module) {
  module.def("scale_axis", &scale_axis, "image"_a, "axis"_a, "first"_a, "count"_a, "weights"_a, "bits"_a);
}

}  // namespace turbomind::bindings
