// SPDX-License-Identifier: Apache-2.0
//
// FRACTAL_NZ: a matrix cut into blocks of 16 rows and 32 bytes of columns; the blocks follow one another column of
// blocks by column of blocks, each block row by row. Storage [..., columns / c0, rows / 16, 16, c0], padded with zeros.
#ifndef FAKECANN_NNOP_NZ_H_
#define FAKECANN_NNOP_NZ_H_

#include "nnop/tensor.h"

#pragma GCC visibility push(default)

namespace fakecann {

inline constexpr int64_t kFractal = 16;

// Elements of one block's row.
int64_t nz_columns(int dtype);
// Storage shape of a matrix (or a batch of them) in NZ.
Dims nz_storage(const Dims& dims, int dtype);
// Position of element (row, column) of a rows x columns matrix.
int64_t nz_position(int64_t row, int64_t column, int64_t rows, int64_t c0);

// The dense row-major matrices behind a view in NZ. A view whose last two strides are swapped is read transposed, as
// the storage says how it was laid down.
std::vector<float> read_nz(const View& view, const char* bytes);
void write_nz(const View& view, char* bytes, const std::vector<float>& values);

}  // namespace fakecann

#pragma GCC visibility pop

#endif  // FAKECANN_NNOP_NZ_H_
