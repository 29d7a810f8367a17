// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "reference/number.h"

namespace turbomind::conformance {

// How far an output may be from the double-precision reference.
struct Tolerance {
  double nmse;      // sum of squared errors / sum of squared expected values
  double relative;  // |error| <= relative * |expected| + absolute * RMS of the expected values
  double absolute;
  double least_rms = 0;  // by construction of the inputs: the RMS of one or two outputs may be small by accident
};

// What rounds besides the output: decides the row of the table.
enum class Arithmetic {
  kExact,         // copies, permutations, integers: bit for bit
  kFloat32,       // float32 sums of float inputs, one rounding at the store
  kHalf,          // products of 16-bit operands: an attention or linear may round its second operand to 16 bits
  kBf16Products,  // float32 operands, all of them rounded to bfloat16 before they are multiplied
  kQuantized,     // integer dot products on activations quantised to 8 bits
  kKvInt8,        // keys and values rounded to 8 bits
};

// The one table of the suite.
Tolerance tolerance(Arithmetic arithmetic, tm_dtype output);

// Empty if found matches expected, else the worst element and the bound it breaks. NaN and infinities must match.
std::string compare(const reference::Values& found, const reference::Values& expected, const Tolerance& tolerance);

}  // namespace turbomind::conformance
