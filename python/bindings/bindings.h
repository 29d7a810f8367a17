// SPDX-License-Identifier: Apache-2.0
//
// One function per file of this folder: each adds its classes to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace turbomind::bindings {

void bind_errors(pybind11::module_& module);
void bind_config(pybind11::module_& module);
void bind_output(pybind11::module_& module);
void bind_engine(pybind11::module_& module);
void bind_plugins(pybind11::module_& module);

}  // namespace turbomind::bindings
