// SPDX-License-Identifier: Apache-2.0
#include "weights.h"

#include <memory>
#include <utility>

#include "config.h"
#include "turbomind/core/error.h"

namespace py = pybind11;

namespace turbomind::bindings {
namespace {

std::shared_ptr<const void> keep_alive(py::buffer_info info) {
  return {new py::buffer_info(std::move(info)), [](const void* held) {
            const py::gil_scoped_acquire gil;
            delete static_cast<const py::buffer_info*>(held);
          }};
}

}  // namespace

WeightSource weight_source(const std::string& name, const std::string& format, const std::vector<int64_t>& shape,
                           const py::buffer& data) {
  check(shape.size() == 1 || shape.size() == 2, ErrorCode::kInvalidArgument, name,
        ".shape: expected 1 or 2 dimensions, found ", shape.size());
  py::buffer_info info = data.request();
  WeightSource source;
  source.name = name;
  source.format = weight_format(format);
  source.rows = shape[0];
  source.cols = shape.size() == 2 ? shape[1] : 1;
  source.data = info.ptr;
  source.bytes = static_cast<size_t>(info.size * info.itemsize);
  source.owner = keep_alive(std::move(info));
  return source;
}

}  // namespace turbomind::bindings
