// SPDX-License-Identifier: Apache-2.0
//
// One function per file of this folder: each adds its classes to the module.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "turbomind/core/error.h"

namespace turbomind::bindings {

// The exception of manymind.errors for an error of the engine, not raised.
pybind11::object make_python_error(ErrorCode code, const std::string& message);

void bind_errors(pybind11::module_& module);
void bind_config(pybind11::module_& module);
void bind_output(pybind11::module_& module);
void bind_embedder(pybind11::module_& module);
void bind_engine(pybind11::module_& module);
void bind_guide(pybind11::module_& module);
void bind_plugins(pybind11::module_& module);
void bind_scaling(pybind11::module_& module);
void bind_text(pybind11::module_& module);

}  // namespace turbomind::bindings
