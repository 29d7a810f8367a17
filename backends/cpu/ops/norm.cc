// SPDX-License-Identifier: Apache-2.0
#include "ops.h"
#include "ops/heads.h"
#include "ops/row_ranges.h"

namespace turbomind::cpu {
namespace {

// [T, H] as [T, 1, H], so that both ranks of rms_norm are one.
Heads<float> rows_arg(const tm_tensor& tensor, const char* argument) {
  if (tensor.ndim == 3) return heads_arg<float>(tensor, argument);
  const Matrix<float> matrix = matrix_arg<float>(tensor, argument);
  return {matrix.data, matrix.rows, 1, matrix.cols, matrix.stride};
}

}  // namespace

void CpuOps::rms_norm(Stream& stream, const tm_rms_norm_args& args, const tm_workspace&) {
  const Heads<float> x = rows_arg(args.x, "x");
  const Heads<float> out = rows_arg(args.out, "out");
  const float* weight = vector_arg<float>(args.weight, "weight");
  const auto norm = stream.kernels().norm.rms_norm;
  for_row_ranges(stream.pool(), x.rows, x.heads * x.dim, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < x.heads; ++head) {
        norm(x.head(row, head), weight, args.eps, x.dim, out.head(row, head));
      }
    }
  });
}

void CpuOps::add_rms_norm(Stream& stream, const tm_add_rms_norm_args& args, const tm_workspace&) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  const Matrix<float> residual = matrix_arg<float>(args.residual, "residual");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  const float* weight = vector_arg<float>(args.weight, "weight");
  const auto norm = stream.kernels().norm.add_rms_norm;
  for_row_ranges(stream.pool(), x.rows, 2 * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      norm(x.row(row), residual.row(row), weight, args.eps, x.cols, out.row(row));
    }
  });
}

void CpuOps::layer_norm(Stream& stream, const tm_layer_norm_args& args, const tm_workspace&) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  const float* weight = vector_arg<float>(args.weight, "weight");
  const float* bias = vector_arg<float>(args.bias, "bias");
  const auto norm = stream.kernels().norm.layer_norm;
  for_row_ranges(stream.pool(), x.rows, 2 * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) norm(x.row(row), weight, bias, args.eps, x.cols, out.row(row));
  });
}

}  // namespace turbomind::cpu
