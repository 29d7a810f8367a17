// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/weight_slice.h"

#include <algorithm>

#include "turbomind/core/dtype.h"

namespace turbomind {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows x columns of codes that share one scale.
struct ScaleTile {
  int64_t rows;
  int64_t cols;
};

ScaleTile scale_tile(const WeightSource& source) {
  switch (source.format) {
    case TM_WEIGHT_INT4_GROUP:
    case TM_WEIGHT_INT8_GROUP:
      check(source.group_size > 0, ErrorCode::kInvalidArgument, "group_size: expected a positive count, found ",
            source.group_size);
      return {1, source.group_size};
    case TM_WEIGHT_FP8_TENSOR:
      return {source.rows, source.cols};
    case TM_WEIGHT_FP8_BLOCK128:
      return {128, 128};
    case TM_WEIGHT_MXFP4:
      return {1, 32};
    default:
      return {1, source.cols};
  }
}

void check_cut(const WeightSource& source, const char* axis, Range range, int64_t size, int64_t step) {
  const bool on_boundary = range.begin % step == 0 && (range.count % step == 0 || range.end() == size);
  check(on_boundary, ErrorCode::kInvalidArgument, "format ", weight_format_name(source.format), " can be cut every ",
        step, " ", axis, "; expected a slice on such boundaries, found ", axis, " ", range.begin, " to ", range.end(),
        " of ", size, " (use a smaller tp)");
}

void check_bytes(const char* what, size_t expected, size_t found) {
  check(expected == found, ErrorCode::kInvalidArgument, what, ": expected ", expected, " bytes, found ", found);
}

const void* advance(const void* base, int64_t bytes) { return static_cast<const char*>(base) + bytes; }

}  // namespace

void check_source_bytes(const WeightSource& source) {
  const WeightFormatInfo& info = weight_format_info(source.format);
  check(source.data != nullptr, ErrorCode::kInvalidArgument, "expected data, found none");
  check_bytes("data", static_cast<size_t>(source.rows * weight_row_bytes(source.format, source.cols)), source.bytes);
  if (!info.separate_scales) return;
  check(source.scales != nullptr, ErrorCode::kInvalidArgument, "scales: expected an array for format ", info.name,
        ", found none");
  const ScaleTile tile = scale_tile(source);
  const int64_t num_scales = ceil_div(source.rows, tile.rows) * ceil_div(source.cols, tile.cols);
  check_bytes("scales", static_cast<size_t>(num_scales) * dtype_size(source.scale_dtype), source.scale_bytes);
  if (source.zeros) check_bytes("zeros", static_cast<size_t>(num_scales), source.zero_bytes);
}

tm_weight_part slice_weight(const WeightSource& source, Range rows, Range cols) {
  const WeightFormatInfo& info = weight_format_info(source.format);
  const int64_t row_bytes = weight_row_bytes(source.format, source.cols);
  check_cut(source, "columns", cols, source.cols, info.block_elements);
  tm_weight_part part{
      .data = advance(source.data, rows.begin * row_bytes + cols.begin / info.block_elements * info.block_bytes),
      .rows = rows.count,
      .row_stride_bytes = row_bytes};
  if (!info.separate_scales) return part;

  const ScaleTile tile = scale_tile(source);
  if (tile.rows < source.rows) check_cut(source, "rows", rows, source.rows, tile.rows);
  if (tile.cols < source.cols) check_cut(source, "columns", cols, source.cols, tile.cols);
  const int64_t scales_per_row = ceil_div(source.cols, tile.cols);
  const int64_t first_scale = rows.begin / tile.rows * scales_per_row + cols.begin / tile.cols;
  const auto scale_size = static_cast<int64_t>(dtype_size(source.scale_dtype));
  part.scales = advance(source.scales, first_scale * scale_size);
  part.scale_stride_bytes = scales_per_row * scale_size;
  if (source.zeros) {
    part.zeros = advance(source.zeros, first_scale);
    part.zero_stride_bytes = scales_per_row;
  }
  return part;
}

}  // namespace turbomind
