// SPDX-License-Identifier: Apache-2.0
//
// Matrix products and the conversions of weights to NZ.
#include <cstring>

#include "abi/ops.h"
#include "nnop/number.h"
#include "nnop/nz.h"
#include "ops/matrix.h"

namespace fakecann {
namespace {

int nibble(const char* bytes, int64_t position) {
  const int value = (static_cast<uint8_t>(bytes[position >> 1]) >> ((position & 1) * 4)) & 15;
  return value >= 8 ? value - 16 : value;
}

// Element (row, column) of matrix `batch` as it lies in the storage, whichever way the view turns it.
int64_t storage_position(const View& view, int64_t batch, int64_t row, int64_t column) {
  const int rank = view.rank();
  if (view.format == ACL_FORMAT_FRACTAL_NZ) {
    const bool is_transposed = view.strides[rank - 2] == 1 && view.strides[rank - 1] != 1;
    const int64_t rows = view.dim(is_transposed ? -1 : -2), columns = view.dim(is_transposed ? -2 : -1);
    const int64_t stored = count_of(nz_storage({rows, columns}, view.dtype));
    if (is_transposed) std::swap(row, column);
    return batch * stored + nz_position(row, column, rows, nz_columns(view.dtype));
  }
  int64_t position = row * view.strides[rank - 2] + column * view.strides[rank - 1];
  for (int axis = rank - 3; axis >= 0; --axis) {
    position += batch % view.dims[axis] * view.strides[axis];
    batch /= view.dims[axis];
  }
  return position;
}

template <typename Convert>
void read_dense_rows(const uint16_t* from, int64_t n_stride, int64_t count, int64_t k, float* rows, Convert&& convert) {
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t i = 0; i < k; ++i) rows[j * k + i] = convert(from[j * n_stride + i]);
  }
}

}  // namespace

void read_columns(const Bound& bound, int index, int64_t batch, int64_t first, int64_t count, float* rows) {
  const View& view = bound.view(index);
  const char* bytes = bound.bytes(index);
  const int64_t k = view.dim(-2), bits = bits_of(view.dtype);
  const bool is_plain = view.format == ACL_FORMAT_ND && view.strides[view.rank() - 2] == 1;
  if (is_plain && bits == 16) {
    const auto* from = reinterpret_cast<const uint16_t*>(bytes) + storage_position(view, batch, 0, first);
    const int64_t stride = view.strides[view.rank() - 1];
    if (view.dtype == ACL_BF16)
      return read_dense_rows(from, stride, count, k, rows, [](uint16_t bits_of_one) { return from_bf16(bits_of_one); });
    return read_dense_rows(from, stride, count, k, rows, [](uint16_t bits_of_one) { return from_f16(bits_of_one); });
  }
  if (is_plain && view.dtype == ACL_FLOAT) {
    const auto* from = reinterpret_cast<const float*>(bytes) + storage_position(view, batch, 0, first);
    const int64_t stride = view.strides[view.rank() - 1];
    for (int64_t j = 0; j < count; ++j) std::memcpy(rows + j * k, from + j * stride, static_cast<size_t>(k) * 4);
    return;
  }
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < count; ++j) {
      const int64_t position = storage_position(view, batch, i, first + j);
      rows[j * k + i] = bits == 4 ? static_cast<float>(nibble(bytes, position))
                                  : static_cast<float>(load_double(bytes + position * bits / 8, view.dtype));
    }
  }
}

std::vector<float> multiply(const Bound& bound, const std::vector<float>& x, int64_t m, int index, int64_t batch) {
  const View& view = bound.view(index);
  std::vector<float> out(static_cast<size_t>(m * view.dim(-1)));
  gemm(
      x.data(), m, view.dim(-1), view.dim(-2),
      [&](int64_t first, int64_t count, float* rows) { read_columns(bound, index, batch, first, count, rows); },
      out.data());
  return out;
}

namespace {

// Batches of `dims` before its last two axes.
int64_t batches_of(const Dims& dims) { return dims.size() <= 2 ? 1 : count_of(Dims(dims.begin(), dims.end() - 2)); }

void run_matmul(const Bound& bound, int a, int b, int y) {
  const View& left = bound.view(a);
  const int64_t k = bound.view(b).dim(-2), n = bound.view(b).dim(-1);
  const std::vector<float> x = bound.floats(a);
  if (bound.view(b).rank() == 2) return bound.put(y, multiply(bound, x, left.count() / std::max<int64_t>(k, 1), b, 0));
  const int64_t batches = batches_of(left.dims), weights = batches_of(bound.view(b).dims), m = left.dim(-2);
  std::vector<float> out;
  out.reserve(static_cast<size_t>(batches * m * n));
  for (int64_t batch = 0; batch < batches; ++batch) {
    const std::vector<float> part(x.begin() + batch * m * k, x.begin() + (batch + 1) * m * k);
    const std::vector<float> product = multiply(bound, part, m, b, weights == 1 ? 0 : batch);
    out.insert(out.end(), product.begin(), product.end());
  }
  bound.put(y, out);
}

aclnnStatus matmul(const char* op, FakeIn self, FakeIn mat2, aclTensor* out, int8_t cube_math, uint64_t* size,
                   aclOpExecutor** executor) {
  return plan(op, size, executor, [&](Call& call) {
    const int a = call.in("self", self), b = call.in("mat2", mat2), y = call.out("out", out);
    call.attribute("cubeMathType", cube_math);
    call.check();
    const View &left = call.view(a), &right = call.view(b), &result = call.view(y);
    call.require(left.dim(-1) == right.dim(-2), "the last axis of self meets the last but one of mat2");
    call.require(result.dim(-1) == right.dim(-1), "out has the columns of mat2");
    const int64_t weights = batches_of(right.dims);
    if (right.rank() > 2)
      call.require(weights == 1 || weights == batches_of(left.dims), "the batches of self and mat2 agree");
    call.require(result.count() == left.count() / std::max<int64_t>(left.dim(-1), 1) * right.dim(-1),
                 "out has the rows of self");
    call.run([=](const Bound& bound) { run_matmul(bound, a, b, y); });
  });
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

FAKECANN_OP(Matmul, FakeIn self, FakeIn mat2, aclTensor* out, int8_t cubeMathType) {
  return matmul("Matmul", self, mat2, out, cubeMathType, workspace_size, executor);
}

FAKECANN_OP(Mm, FakeIn self, FakeIn mat2, aclTensor* out, int8_t cubeMathType) {
  return matmul("Mm", self, mat2, out, cubeMathType, workspace_size, executor);
}

FAKECANN_OP(BatchMatMul, FakeIn self, FakeIn mat2, aclTensor* out, int8_t cubeMathType) {
  return matmul("BatchMatMul", self, mat2, out, cubeMathType, workspace_size, executor);
}

FAKECANN_OP(MatmulWeightNz, FakeIn self, FakeIn mat2, aclTensor* out, int8_t cubeMathType) {
  return matmul("MatmulWeightNz", self, mat2, out, cubeMathType, workspace_size, executor);
}

FAKECANN_OP(Addmm, FakeIn self, FakeIn mat1, FakeIn mat2, FakeScalar beta, FakeScalar alpha, aclTensor* out,
            int8_t cubeMathType) {
  return plan("Addmm", workspace_size, executor, [&](Call& call) {
    const int c = call.in("self", self), a = call.in("mat1", mat1), b = call.in("mat2", mat2), y = call.out("out", out);
    const auto keep = static_cast<float>(call.scalar("beta", beta, 1).value);
    const auto factor = static_cast<float>(call.scalar("alpha", alpha, 1).value);
    call.attribute("cubeMathType", cubeMathType);
    call.check();
    call.require(call.view(a).dim(1) == call.view(b).dim(0), "the columns of mat1 meet the rows of mat2");
    call.require(call.view(y).dims == Dims{call.view(a).dim(0), call.view(b).dim(1)},
                 "out is [rows of mat1, columns of mat2]");
    call.run([=](const Bound& bound) {
      std::vector<float> product = multiply(bound, bound.floats(a), bound.view(a).dim(0), b, 0);
      const std::vector<float> added = bound.floats(c, bound.view(y).dims);
      for (size_t i = 0; i < product.size(); ++i) product[i] = factor * product[i] + keep * added[i];
      bound.put(y, product);
    });
  });
}

// Turns the tensor's own storage into NZ, in place; the description counts as NZ from then on.
FAKECANN_OP(TransMatmulWeight, aclTensor* weight) {
  return plan("TransMatmulWeight", workspace_size, executor, [&](Call& call) {
    const int w = call.out("weight", weight);
    call.check();
    const View before = call.view(w);
    const int64_t bits = bits_of(before.dtype), reached = count_of(before.storage);
    call.require(reached >= count_of(nz_storage(before.dims, before.dtype)),
                 "the storage holds what aclnnCalculateMatmulWeightSizeV2 asks for");
    weight->view.format = ACL_FORMAT_FRACTAL_NZ;
    weight->view.storage = nz_storage(before.dims, before.dtype);
    call.run([=](const Bound& bound) {
      View nz = before;
      nz.format = ACL_FORMAT_FRACTAL_NZ;
      nz.storage = nz_storage(before.dims, before.dtype);
      const std::vector<float> values = bound.floats(w);
      write_nz(nz, bound.bytes(w) - before.offset * bits / 8, values);
    });
  });
}

aclnnStatus aclnnCalculateMatmulWeightSizeV2(FakeInts shape, aclDataType dtype, uint64_t* size) {
  return guarded(__func__, [&] {
    if (shape == nullptr || size == nullptr) fail(kNullParameter, "null argument");
    if (shape->values.size() != 2) fail(kBadParameter, "a weight has two dimensions");
    *size = static_cast<uint64_t>(count_of(nz_storage(shape->values, dtype)));
  });
}

aclnnStatus aclnnNpuFormatCastCalculateSizeAndFormat(FakeIn source, int format, int, int64_t** storage_dims,
                                                     uint64_t* storage_rank, int* actual_format) {
  return guarded(__func__, [&] {
    if (source == nullptr || storage_dims == nullptr || storage_rank == nullptr || actual_format == nullptr) {
      fail(kNullParameter, "null argument");
    }
    const View& view = source->view;
    if (format != ACL_FORMAT_FRACTAL_NZ && format != ACL_FORMAT_ND) fail(kBadParameter, "only ND and NZ are described");
    if (view.rank() < 2 || view.rank() > 6) fail(kBadParameter, "a tensor of two to six dimensions");
    const Dims storage = format == ACL_FORMAT_ND ? view.dims : nz_storage(view.dims, view.dtype);
    *storage_dims = new int64_t[storage.size()];
    std::memcpy(*storage_dims, storage.data(), storage.size() * sizeof(int64_t));
    *storage_rank = storage.size();
    *actual_format = format;
  });
}

FAKECANN_OP(NpuFormatCast, FakeIn source, aclTensor* destination) {
  return plan("NpuFormatCast", workspace_size, executor, [&](Call& call) {
    const int x = call.in("source", source), y = call.out("destination", destination);
    call.check();
    call.require(call.view(x).dims == call.view(y).dims, "source and destination have one shape");
    call.require(call.view(x).format != call.view(y).format, "source and destination differ in format");
    call.run([=](const Bound& bound) { bound.put(y, bound.floats(x)); });
  });
}
