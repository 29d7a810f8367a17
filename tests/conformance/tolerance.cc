// SPDX-License-Identifier: Apache-2.0
#include "tolerance.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>

namespace turbomind::conformance {
namespace {

struct Row {
  Arithmetic arithmetic;
  Tolerance f32;
  Tolerance f16;
  Tolerance bf16;
};

// Half a unit in the last place: 2^-24 (f32), 2^-11 (f16), 2^-8 (bf16, of 8 significant bits: 2^-9). One rounding costs
// an NMSE of about a third of its square; the rest is what the arithmetic itself may lose.
constexpr std::array<Row, 6> kTable{{
    {Arithmetic::kExact, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}},
    {Arithmetic::kFloat32, {1e-11, 2e-5, 5e-6}, {3e-7, 1.1e-3, 5e-5}, {6e-6, 8.5e-3, 5e-5}},
    {Arithmetic::kHalf, {2e-5, 2e-2, 2e-2}, {2e-5, 2e-2, 2e-2}, {4e-5, 2e-2, 2e-2}},
    {Arithmetic::kBf16Products, {3e-5, 2e-2, 4e-2}, {3e-5, 2e-2, 4e-2}, {4e-5, 2e-2, 4e-2}},
    {Arithmetic::kQuantized, {3e-4, 0, 0.1}, {3e-4, 0, 0.1}, {3e-4, 0, 0.1}},
    {Arithmetic::kKvInt8, {5e-4, 0, 0.15}, {5e-4, 0, 0.15}, {5e-4, 0, 0.15}},
}};

constexpr size_t kLeastForAverage = 8;

bool same_special(double found, double expected) {
  if (std::isnan(expected)) return std::isnan(found);
  return found == expected;
}

std::string describe(size_t index, double found, double expected, const char* reason) {
  std::ostringstream text;
  text.precision(9);
  text << "element " << index << ": expected " << expected << ", found " << found << " (" << reason << ")";
  return text.str();
}

}  // namespace

Tolerance tolerance(Arithmetic arithmetic, tm_dtype output) {
  if (output != TM_F32 && output != TM_F16 && output != TM_BF16) return {0, 0, 0};
  for (const Row& row : kTable) {
    if (row.arithmetic == arithmetic) return output == TM_F32 ? row.f32 : output == TM_F16 ? row.f16 : row.bf16;
  }
  return {0, 0, 0};
}

std::string compare(const reference::Values& found, const reference::Values& expected, const Tolerance& tolerance) {
  if (found.size() != expected.size()) return "the reference has another number of elements";
  double square_error = 0;
  double square_sum = 0;
  size_t finite = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    if (!std::isfinite(expected[i]) || !std::isfinite(found[i])) {
      if (!same_special(found[i], expected[i])) return describe(i, found[i], expected[i], "NaN or infinity pattern");
      continue;
    }
    square_error += (found[i] - expected[i]) * (found[i] - expected[i]);
    square_sum += expected[i] * expected[i];
    ++finite;
  }
  square_sum = std::max(square_sum, static_cast<double>(finite) * tolerance.least_rms * tolerance.least_rms);
  const double rms = std::sqrt(square_sum / static_cast<double>(std::max<size_t>(finite, 1)));
  for (size_t i = 0; i < found.size(); ++i) {
    if (!std::isfinite(expected[i])) continue;
    const double bound = tolerance.relative * std::fabs(expected[i]) + tolerance.absolute * rms;
    if (std::fabs(found[i] - expected[i]) > bound)
      return describe(i, found[i], expected[i], "beyond the element bound");
  }
  // The bound is one for averages: a few elements may all round as badly as the element bound allows.
  if (finite >= kLeastForAverage && square_error > tolerance.nmse * square_sum) {
    std::ostringstream text;
    text << "NMSE " << square_error / square_sum << ", at most " << tolerance.nmse << " allowed";
    return text.str();
  }
  return {};
}

}  // namespace turbomind::conformance
