// SPDX-License-Identifier: Apache-2.0
//
// Element types in double arithmetic: the reference knows values, not bits.
#pragma once

#include <cstdint>
#include <vector>

#include "tm_backend.h"

namespace turbomind::reference {

using Values = std::vector<double>;

// The element at index of an array of that dtype, and its storing, rounded to nearest even (integers saturate).
double load(tm_dtype dtype, const void* data, int64_t index);
void store(tm_dtype dtype, void* data, int64_t index, double value);
// value rounded to the dtype.
double round_to(tm_dtype dtype, double value);

// A float with a sign, exponent_bits and mantissa_bits, from its bits. The largest exponent is infinity or NaN only
// if ieee is set (fp8 e4m3 has none but one NaN, which is handled by its caller).
double decode_float(uint32_t bits, int exponent_bits, int mantissa_bits, bool ieee);

}  // namespace turbomind::reference
