// SPDX-License-Identifier: Apache-2.0
//
// Matrix operands: [k, n] views in any strides or in NZ, read as rows of their transpose.
#ifndef FAKECANN_OPS_MATRIX_H_
#define FAKECANN_OPS_MATRIX_H_

#include "nnop/call.h"
#include "ops/gemm.h"

namespace fakecann {

// Rows `first` .. first + count of the transpose of the [k, n] matrix number `batch` of the view, as float32.
void read_columns(const Bound& bound, int index, int64_t batch, int64_t first, int64_t count, float* rows);

// out[m, n] of x [m, k] (dense floats) and the [k, n] matrix number `batch` of the view.
std::vector<float> multiply(const Bound& bound, const std::vector<float>& x, int64_t m, int index, int64_t batch);

}  // namespace fakecann

#endif  // FAKECANN_OPS_MATRIX_H_
