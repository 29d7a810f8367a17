// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/float_vector.h"

#include <vector>

#include "turbomind/layers/weight_slice.h"
#include "turbomind/ops/dequantize.h"

namespace turbomind {

FloatVector::FloatVector(WeightStore& store, int64_t size)
    : store_(store), size_(size), buffer_(store.reserve(static_cast<size_t>(size) * sizeof(float))) {}

void FloatVector::load(const WeightSource& source, Range rows, int64_t begin) {
  const bool plain = is_float_format(source.format);
  check(plain, ErrorCode::kInvalidArgument, "expected f32, f16 or bf16, found ", weight_format_name(source.format));
  std::vector<float> values(static_cast<size_t>(rows.count));
  const tm_weight_part part = slice_weight(source, rows, whole(1));
  // One column: the elements follow one another like those of a row.
  dequantize_row({.format = source.format, .codes = part.data}, rows.count, values.data());
  store_.upload(buffer_, static_cast<size_t>(begin) * sizeof(float), values.data(), values.size() * sizeof(float));
}

}  // namespace turbomind
