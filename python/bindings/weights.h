// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "turbomind/layers/weight_source.h"

namespace turbomind::bindings {

// data: a contiguous buffer of any item type, [rows, cols] or [n] in the format's own layout; kept alive by the result,
// whose last copy may go on a thread without the GIL.
WeightSource weight_source(const std::string& name, const std::string& format, const std::vector<int64_t>& shape,
                           const pybind11::buffer& data);

}  // namespace turbomind::bindings
