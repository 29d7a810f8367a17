// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "turbomind/engine/media.h"

namespace turbomind::bindings {

// From manymind.models.vision_config.EncoderConfig, or None.
std::optional<EncoderConfig> encoder_config(const pybind11::object& source);
// From manymind.media_input.MediaInput, or None. Pixels are copied, so that no thread of the engine ever has to let go
// of a Python object.
MediaInput media_input(const pybind11::object& source);

}  // namespace turbomind::bindings
