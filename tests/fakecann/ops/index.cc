// SPDX-License-Identifier: Apache-2.0
//
// Rows and elements chosen by indices. An index outside its range is an error of the device, seen when the task runs.
#include <cstring>

#include "abi/ops.h"
#include "nnop/number.h"
#include "ops/axis.h"

namespace fakecann {
namespace {

DataRule index_rule(const Bound& bound) { return bound.rule("indices lie within the axis that they name"); }

int64_t checked(const DataRule& rule, int64_t index, int64_t limit) {
  if (index < 0 || index >= limit) rule.refuse("index " + std::to_string(index) + " of " + std::to_string(limit));
  return index;
}

// Calls work(values, store) on floats or integers, whatever `index` holds.
template <typename Work>
void with_values(const Bound& bound, int index, Work&& work) {
  if (is_floating(bound.view(index).dtype)) {
    work([&](int i) { return bound.floats(i); });
  } else {
    work([&](int i) { return bound.integers(i); });
  }
}

// Of a large table a few rows are chosen, so the bytes of those move and no others.
void select_bytes(const Bound& bound, int x, const std::vector<int64_t>& chosen, int y, const Axis& axis) {
  const DataRule rule = index_rule(bound);
  const auto count = static_cast<int64_t>(chosen.size());
  const auto row = static_cast<size_t>(axis.inner * bits_of(bound.view(x).dtype) / 8);
  for (int64_t o = 0; o < axis.outer; ++o) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t from = o * axis.length + checked(rule, chosen[i], axis.length);
      if (row > 0) std::memcpy(bound.bytes(y) + (o * count + i) * row, bound.bytes(x) + from * row, row);
    }
  }
}

void select(const Bound& bound, int x, int index, int y, const Axis& axis) {
  const DataRule rule = index_rule(bound);
  const std::vector<int64_t> chosen = bound.integers(index);
  if (bound.view(x).is_contiguous() && bound.view(y).is_contiguous()) return select_bytes(bound, x, chosen, y, axis);
  with_values(bound, x, [&](auto read) {
    const auto values = read(x);
    decltype(read(x)) out(static_cast<size_t>(bound.view(y).count()));
    const Axis to{axis.outer, static_cast<int64_t>(chosen.size()), axis.inner};
    for (int64_t o = 0; o < axis.outer; ++o) {
      for (int64_t i = 0; i < to.length; ++i) {
        const int64_t from = axis.at(o, checked(rule, chosen[i], axis.length), 0);
        std::copy_n(values.begin() + from, axis.inner, out.begin() + to.at(o, i, 0));
      }
    }
    bound.put(y, out);
  });
}

// Rows of a large table, converted one at a time.
void embed(const Bound& bound, int weight, int index, int y) {
  const DataRule rule = index_rule(bound);
  const View& table = bound.view(weight);
  const int64_t size = bits_of(table.dtype) / 8, columns = table.dim(1);
  const std::vector<int64_t> chosen = bound.integers(index);
  std::vector<float> out(static_cast<size_t>(bound.view(y).count()));
  for (size_t i = 0; i < chosen.size(); ++i) {
    const char* row = bound.bytes(weight) + checked(rule, chosen[i], table.dim(0)) * table.strides[0] * size;
    for (int64_t j = 0; j < columns; ++j) {
      out[i * columns + j] = static_cast<float>(load_double(row + j * table.strides[1] * size, table.dtype));
    }
  }
  bound.put(y, out);
}

// Into a contiguous tensor.
void put_one(const Bound& bound, int index, int64_t position, float value) {
  const int dtype = bound.view(index).dtype;
  store_float(bound.bytes(index) + position * bits_of(dtype) / 8, dtype, value);
}
void put_one(const Bound& bound, int index, int64_t position, int64_t value) {
  const int dtype = bound.view(index).dtype;
  store_integer(bound.bytes(index) + position * bits_of(dtype) / 8, dtype, value);
}

// Positions in `shape` that each element of an index tensor of shape `at` names along `dim`.
std::vector<int64_t> positions(const DataRule& rule, const std::vector<int64_t>& index, const Dims& at,
                               const Dims& shape, int64_t dim) {
  const Dims strides = dense_strides(shape);
  std::vector<int64_t> found(index.size());
  for (size_t flat = 0; flat < index.size(); ++flat) {
    int64_t rest = static_cast<int64_t>(flat), position = 0;
    for (int axis = static_cast<int>(at.size()) - 1; axis >= 0; --axis) {
      const int64_t here = rest % at[axis];
      rest /= at[axis];
      position += (axis == dim ? checked(rule, index[flat], shape[axis]) : here) * strides[axis];
    }
    found[flat] = position;
  }
  return found;
}

int64_t checked_dim(const Call& call, const View& view, int64_t dim) {
  axis_of(call, view.dims, dim);
  return dim < 0 ? dim + view.rank() : dim;
}

void require_within(const Call& call, const View& index, const View& whole, int64_t dim) {
  call.require(index.rank() == whole.rank(), "index and self have the same rank");
  for (int axis = 0; axis < index.rank(); ++axis) {
    call.require(axis == dim || index.dims[axis] <= whole.dims[axis], "index is no larger than self beside dim");
  }
}

// to = self; to[positions] = or += source.
void scatter(const Bound& bound, int self, int index, int source, int to, int64_t dim, bool adds) {
  const Dims shape = bound.view(self).dims, at = bound.view(index).dims;
  const DataRule rule = index_rule(bound);
  const std::vector<int64_t> where = positions(rule, bound.integers(index), at, shape, dim);
  const std::vector<int64_t> from =
      positions(rule, std::vector<int64_t>(where.size(), 0), at, bound.view(source).dims, -1);
  with_values(bound, self, [&](auto read) {
    auto values = read(self);
    const auto sources = read(source);
    for (size_t i = 0; i < where.size(); ++i) {
      auto& target = values[where[i]];
      target = adds ? target + sources[from[i]] : sources[from[i]];
    }
    bound.put(to, values);
  });
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

FAKECANN_OP(IndexSelect, FakeIn self, int64_t dim, FakeIn index, aclTensor* out) {
  return plan("IndexSelect", workspace_size, executor, [&](Call& call) {
    const int x = call.in("self", self), i = call.in("index", index), y = call.out("out", out);
    call.check();
    const Axis axis = axis_of(call, call.view(x).dims, dim);
    call.require(call.view(y).count() == axis.outer * call.view(i).count() * axis.inner, "out holds the chosen rows");
    call.run([=](const Bound& bound) { select(bound, x, i, y, axis); });
  });
}

FAKECANN_OP(Embedding, FakeIn weight, FakeIn indices, aclTensor* out) {
  return plan("Embedding", workspace_size, executor, [&](Call& call) {
    const int w = call.in("weight", weight), i = call.in("indices", indices), y = call.out("out", out);
    call.check();
    call.require(call.view(y).count() == call.view(i).count() * call.view(w).dim(1), "out holds the chosen rows");
    call.run([=](const Bound& bound) { embed(bound, w, i, y); });
  });
}

FAKECANN_OP(Gather, FakeIn self, int64_t dim, FakeIn index, aclTensor* out) {
  return plan("Gather", workspace_size, executor, [&](Call& call) {
    const int x = call.in("self", self), i = call.in("index", index), y = call.out("out", out);
    call.check();
    const int64_t axis = checked_dim(call, call.view(x), dim);
    require_within(call, call.view(i), call.view(x), axis);
    call.require(call.view(y).dims == call.view(i).dims, "out has the shape of index");
    call.run([=](const Bound& bound) {
      const auto where = positions(index_rule(bound), bound.integers(i), bound.view(i).dims, bound.view(x).dims, axis);
      with_values(bound, x, [&](auto read) {
        const auto values = read(x);
        decltype(read(x)) chosen(where.size());
        for (size_t k = 0; k < where.size(); ++k) chosen[k] = values[where[k]];
        bound.put(y, chosen);
      });
    });
  });
}

FAKECANN_OP(ScatterAdd, FakeIn self, int64_t dim, FakeIn index, FakeIn source, aclTensor* out) {
  return plan("ScatterAdd", workspace_size, executor, [&](Call& call) {
    const int x = call.in("self", self), i = call.in("index", index), s = call.in("source", source);
    const int y = call.out("out", out);
    call.check();
    const int64_t axis = checked_dim(call, call.view(x), dim);
    require_within(call, call.view(i), call.view(x), axis);
    call.run([=](const Bound& bound) { scatter(bound, x, i, s, y, axis, true); });
  });
}

FAKECANN_OP(InplaceScatter, aclTensor* self, int64_t dim, FakeIn index, FakeIn source, int64_t reduce) {
  return plan("InplaceScatter", workspace_size, executor, [&](Call& call) {
    const int x = call.out("self", self), i = call.in("index", index), s = call.in("source", source);
    const int64_t kind = call.attribute("reduce", reduce);
    call.check();
    const int64_t axis = checked_dim(call, call.view(x), dim);
    require_within(call, call.view(i), call.view(x), axis);
    call.run([=](const Bound& bound) { scatter(bound, x, i, s, x, axis, kind == 1); });
  });
}

FAKECANN_OP(ScatterNdUpdate, aclTensor* self, FakeIn indices, FakeIn updates) {
  return plan("ScatterNdUpdate", workspace_size, executor, [&](Call& call) {
    const int x = call.out("self", self), i = call.in("indices", indices), u = call.in("updates", updates);
    call.check();
    const View& whole = call.view(x);
    const int64_t depth = call.view(i).dim(-1), rows = call.view(i).count() / std::max<int64_t>(depth, 1);
    call.require(depth >= 1 && depth <= whole.rank(), "the last axis of indices names axes of self");
    const int64_t row = count_of(Dims(whole.dims.begin() + depth, whole.dims.end()));
    call.require(call.view(u).count() == rows * row, "updates hold one slice for each index");
    call.run([=](const Bound& bound) {
      const DataRule rule = index_rule(bound);
      const std::vector<int64_t> index = bound.integers(i);
      const Dims dims = bound.view(x).dims;
      with_values(bound, x, [&](auto read) {
        const auto from = read(u);
        for (int64_t r = 0; r < rows; ++r) {
          int64_t position = 0;
          for (int64_t k = 0; k < depth; ++k)
            position = position * dims[k] + checked(rule, index[r * depth + k], dims[k]);
          for (int64_t j = 0; j < row; ++j) put_one(bound, x, position * row + j, from[r * row + j]);
        }
      });
    });
  });
}
