// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "turbomind/layers/weight_source.h"

namespace turbomind {

// A float weight as int8_channel, owning its memory: a row's codes are its values over a 127th of the largest of their
// magnitudes, rounded to nearest, ties to even. Throws kInvalidArgument for a value that is not finite.
WeightSource quantize_to_int8(const WeightSource& source);

}  // namespace turbomind
