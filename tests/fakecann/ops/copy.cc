// SPDX-License-Identifier: Apache-2.0
//
// Copies, casts and constants.
#include <cmath>

#include "abi/ops.h"
#include "nnop/call.h"

namespace fakecann {
namespace {

void copy(const Bound& bound, int from, int to) {
  const Dims& dims = bound.view(to).dims;
  if (is_floating(bound.view(from).dtype)) {
    bound.put(to, bound.floats(from, dims));
  } else {
    bound.put(to, bound.integers(from, dims));
  }
}

template <typename Read>
void concatenate(const Bound& bound, const std::vector<int>& parts, int out, int axis, Read&& read) {
  const Dims& dims = bound.view(out).dims;
  const int64_t inner = count_of(Dims(dims.begin() + axis + 1, dims.end()));
  const int64_t outer = count_of(Dims(dims.begin(), dims.begin() + axis));
  decltype(read(0)) values(static_cast<size_t>(count_of(dims)));
  int64_t done = 0;
  for (const int part : parts) {
    const auto from = read(part);
    const int64_t run = bound.view(part).dim(axis) * inner;
    for (int64_t i = 0; i < outer; ++i) {
      std::copy_n(from.begin() + i * run, run, values.begin() + i * dims[axis] * inner + done);
    }
    done += run;
  }
  bound.put(out, values);
}

aclnnStatus fill(const char* op, aclTensor* self, const aclScalar* value, double constant, uint64_t* size,
                 aclOpExecutor** executor) {
  return plan(op, size, executor, [&](Call& call) {
    const int y = call.out("self", self);
    const aclScalar given =
        value == nullptr ? aclScalar{ACL_FLOAT, constant, static_cast<int64_t>(constant)} : call.scalar("value", value);
    call.check();
    call.run([=](const Bound& bound) {
      const auto count = static_cast<size_t>(bound.view(y).count());
      if (is_floating(bound.view(y).dtype)) {
        bound.put(y, std::vector<float>(count, static_cast<float>(given.value)));
      } else {
        bound.put(y, std::vector<int64_t>(count, given.integer));
      }
    });
  });
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

FAKECANN_OP(Cast, FakeIn self, aclDataType dtype, aclTensor* out) {
  return plan("Cast", workspace_size, executor, [&](Call& call) {
    const int x = call.in("self", self), y = call.out("out", out);
    call.check();
    call.require(call.view(y).dtype == dtype, "out has the dtype that is asked for");
    call.run([=](const Bound& bound) { copy(bound, x, y); });
  });
}

FAKECANN_OP(InplaceCopy, aclTensor* self, FakeIn source) {
  return plan("InplaceCopy", workspace_size, executor, [&](Call& call) {
    const int y = call.out("self", self), x = call.in("source", source);
    call.check();
    call.require(call.view(x).rank() <= call.view(y).rank(), "source broadcasts to self");
    for (int axis = 1; axis <= call.view(x).rank(); ++axis) {
      const int64_t from = call.view(x).dim(-axis);
      call.require(from == 1 || from == call.view(y).dim(-axis), "source broadcasts to self");
    }
    call.run([=](const Bound& bound) { copy(bound, x, y); });
  });
}

FAKECANN_OP(InplaceZero, aclTensor* self) { return fill("InplaceZero", self, nullptr, 0, workspace_size, executor); }

FAKECANN_OP(InplaceOne, aclTensor* self) { return fill("InplaceOne", self, nullptr, 1, workspace_size, executor); }

FAKECANN_OP(InplaceFillScalar, aclTensor* self, FakeScalar value) {
  return fill("InplaceFillScalar", self, value, 0, workspace_size, executor);
}

FAKECANN_OP(Arange, FakeScalar start, FakeScalar end, FakeScalar step, aclTensor* out) {
  return plan("Arange", workspace_size, executor, [&](Call& call) {
    const int y = call.out("out", out);
    const aclScalar first = call.scalar("start", start), stop = call.scalar("end", end),
                    by = call.scalar("step", step, 1);
    call.check();
    call.require(by.value != 0, "step is not 0");
    const auto count = static_cast<int64_t>(std::ceil((stop.value - first.value) / by.value));
    call.require(call.view(y).count() == count, "out holds ceil((end - start) / step) elements");
    call.run([=](const Bound& bound) {
      if (is_floating(bound.view(y).dtype)) {
        std::vector<float> values(static_cast<size_t>(count));
        for (int64_t i = 0; i < count; ++i)
          values[i] = static_cast<float>(first.value + static_cast<double>(i) * by.value);
        return bound.put(y, values);
      }
      std::vector<int64_t> values(static_cast<size_t>(count));
      for (int64_t i = 0; i < count; ++i) values[i] = first.integer + i * by.integer;
      bound.put(y, values);
    });
  });
}

FAKECANN_OP(Cat, FakeIns tensors, int64_t dim, aclTensor* out) {
  return plan("Cat", workspace_size, executor, [&](Call& call) {
    const std::vector<int> parts = call.in("tensors", tensors);
    const int y = call.out("out", out);
    call.check();
    const int rank = call.view(y).rank();
    const int axis = static_cast<int>(dim < 0 ? dim + rank : dim);
    call.require(axis >= 0 && axis < rank, "dim names an axis of out");
    int64_t total = 0;
    for (const int part : parts) {
      call.require(call.view(part).rank() == rank, "all tensors have the rank of out");
      total += call.view(part).dim(axis);
    }
    call.require(total == call.view(y).dim(axis), "the tensors fill out");
    call.run([=](const Bound& bound) {
      if (is_floating(bound.view(y).dtype)) {
        concatenate(bound, parts, y, axis, [&](int part) { return bound.floats(part); });
      } else {
        concatenate(bound, parts, y, axis, [&](int part) { return bound.integers(part); });
      }
    });
  });
}
