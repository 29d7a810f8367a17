// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "tm_backend.h"
#include "turbomind/models/decoder_config.h"

namespace turbomind::bindings {

// manymind.models.config.DecoderConfig -> DecoderConfig, field by field.
DecoderConfig decoder_config(const pybind11::object& source);
RopeConfig rope_config(const pybind11::handle& source);
// "silu", ... what: the field named in the kUnsupported error for an unknown name.
tm_activation_kind activation_kind(const std::string& name, const char* what);
// "f32", "gguf_q4_1", ... Throws kUnsupported for an unknown name.
tm_weight_format weight_format(const std::string& name);

}  // namespace turbomind::bindings
