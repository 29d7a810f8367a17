// SPDX-License-Identifier: Apache-2.0
#include "nnop/nz.h"

#include "nnop/number.h"

namespace fakecann {
namespace {

struct Layout {
  int64_t batch;
  int64_t rows;  // of the matrix as it lies in the storage
  int64_t columns;
  int64_t c0;
  bool is_transposed;
};

Layout layout_of(const View& view) {
  const int rank = view.rank();
  if (rank < 2) fail(kBadParameter, "an NZ tensor has at least two dimensions: " + view.text());
  const bool is_transposed = view.strides[rank - 2] == 1 && view.strides[rank - 1] != 1;
  Layout layout{1, view.dim(is_transposed ? -1 : -2), view.dim(is_transposed ? -2 : -1), nz_columns(view.dtype),
                is_transposed};
  for (int axis = 0; axis < rank - 2; ++axis) layout.batch *= view.dims[axis];
  Dims stored(view.dims.begin(), view.dims.end() - 2);
  stored.insert(stored.end(), {layout.rows, layout.columns});
  if (count_of(nz_storage(stored, view.dtype)) != count_of(view.storage)) {
    fail(kBadParameter, "the storage of " + view.text() + " is not that of its matrix in NZ");
  }
  return layout;
}

// visit(position in the dense view, position in the storage).
template <typename Visit>
void for_each_element(const Layout& layout, Visit&& visit) {
  const int64_t blocks = (layout.columns + layout.c0 - 1) / layout.c0 * ((layout.rows + kFractal - 1) / kFractal);
  const int64_t stored = blocks * kFractal * layout.c0;
  for (int64_t b = 0; b < layout.batch; ++b) {
    for (int64_t row = 0; row < layout.rows; ++row) {
      for (int64_t column = 0; column < layout.columns; ++column) {
        const int64_t dense = layout.is_transposed ? column * layout.rows + row : row * layout.columns + column;
        visit(b * layout.rows * layout.columns + dense, b * stored + nz_position(row, column, layout.rows, layout.c0));
      }
    }
  }
}

}  // namespace

int64_t nz_columns(int dtype) { return 256 / bits_of(dtype); }

Dims nz_storage(const Dims& dims, int dtype) {
  const int64_t c0 = nz_columns(dtype), rows = dims[dims.size() - 2], columns = dims[dims.size() - 1];
  Dims storage(dims.begin(), dims.end() - 2);
  storage.insert(storage.end(), {(columns + c0 - 1) / c0, (rows + kFractal - 1) / kFractal, kFractal, c0});
  return storage;
}

int64_t nz_position(int64_t row, int64_t column, int64_t rows, int64_t c0) {
  const int64_t block_rows = (rows + kFractal - 1) / kFractal;
  return ((column / c0 * block_rows + row / kFractal) * kFractal + row % kFractal) * c0 + column % c0;
}

std::vector<float> read_nz(const View& view, const char* bytes) {
  const Layout layout = layout_of(view);
  std::vector<float> out(static_cast<size_t>(view.count()));
  const int64_t bits = bits_of(view.dtype);
  for_each_element(layout, [&](int64_t dense, int64_t stored) {
    if (bits == 4) {
      const int nibble = (static_cast<uint8_t>(bytes[stored / 2]) >> (stored % 2 * 4)) & 15;
      out[dense] = static_cast<float>(nibble >= 8 ? nibble - 16 : nibble);
    } else {
      out[dense] = static_cast<float>(load_double(bytes + stored * bits / 8, view.dtype));
    }
  });
  return out;
}

void write_nz(const View& view, char* bytes, const std::vector<float>& values) {
  const Layout layout = layout_of(view);
  const int64_t size = bits_of(view.dtype) / 8;
  std::memset(bytes, 0, static_cast<size_t>(count_of(view.storage) * size));
  for_each_element(layout, [&](int64_t dense, int64_t stored) {
    store_float(bytes + stored * size, view.dtype, values[static_cast<size_t>(dense)]);
  });
}

}  // namespace fakecann
