// SPDX-License-Identifier: Apache-2.0
//
// Reductions, scans and orders along axes. Sums are taken in double precision.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "abi/ops.h"
#include "ops/axis.h"

namespace fakecann {
namespace {

// For each element of the reduced tensor, the positions of what it is made of: strides over kept and dropped axes.
struct Reduction {
  Dims kept_dims, kept_strides, dropped_dims, dropped_strides;
  Dims out_dims;
};

Reduction reduction_of(const Call& call, const Dims& dims, const Dims& axes, bool keep) {
  std::vector<bool> is_dropped(dims.size(), axes.empty());
  for (const int64_t axis : axes) {
    const auto rank = static_cast<int64_t>(dims.size());
    call.require(axis >= -rank && axis < rank, "dims name axes of self");
    is_dropped[static_cast<size_t>(axis < 0 ? axis + rank : axis)] = true;
  }
  const Dims strides = dense_strides(dims);
  Reduction reduction;
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    (is_dropped[axis] ? reduction.dropped_dims : reduction.kept_dims).push_back(dims[axis]);
    (is_dropped[axis] ? reduction.dropped_strides : reduction.kept_strides).push_back(strides[axis]);
    if (!is_dropped[axis]) reduction.out_dims.push_back(dims[axis]);
    if (is_dropped[axis] && keep) reduction.out_dims.push_back(1);
  }
  return reduction;
}

std::vector<int64_t> offsets_of(const Dims& dims, const Dims& strides) {
  std::vector<int64_t> offsets(1, 0);
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    std::vector<int64_t> next;
    for (const int64_t offset : offsets) {
      for (int64_t i = 0; i < dims[axis]; ++i) next.push_back(offset + i * strides[axis]);
    }
    offsets = std::move(next);
  }
  return offsets;
}

enum class Fold { kSum, kMean, kMax };

aclnnStatus reduce(const char* op, FakeIn self, FakeInts dims, bool keep, aclTensor* out, Fold fold, uint64_t* size,
                   aclOpExecutor** executor) {
  return plan(op, size, executor, [&](Call& call) {
    const int x = call.in("self", self), y = call.out("out", out);
    const Dims axes = call.array("dims", dims);
    call.check();
    const Reduction reduction = reduction_of(call, call.view(x).dims, axes, keep);
    call.require(call.view(y).dims == reduction.out_dims, "out has the shape of the reduction");
    call.run([=](const Bound& bound) {
      const std::vector<float> values = bound.floats(x);
      const std::vector<int64_t> kept = offsets_of(reduction.kept_dims, reduction.kept_strides);
      const std::vector<int64_t> dropped = offsets_of(reduction.dropped_dims, reduction.dropped_strides);
      std::vector<float> result(kept.size());
      for (size_t i = 0; i < kept.size(); ++i) {
        double total = fold == Fold::kMax ? -INFINITY : 0;
        for (const int64_t offset : dropped) {
          const double value = values[kept[i] + offset];
          total = fold != Fold::kMax ? total + value : std::isnan(value) || value > total ? value : total;
        }
        result[i] = static_cast<float>(fold == Fold::kMean ? total / static_cast<double>(dropped.size()) : total);
      }
      bound.put(y, result);
    });
  });
}

// Descending or ascending; NaN counts as the largest; equal elements keep their order.
std::vector<int64_t> order_of(const std::vector<float>& values, const Axis& axis, int64_t o, int64_t in,
                              bool descending) {
  std::vector<int64_t> order(static_cast<size_t>(axis.length));
  std::iota(order.begin(), order.end(), 0);
  const auto less = [&](int64_t a, int64_t b) {
    const float left = values[axis.at(o, a, in)], right = values[axis.at(o, b, in)];
    if (std::isnan(left) || std::isnan(right)) return !std::isnan(left) && std::isnan(right);
    return left < right;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return descending ? less(b, a) : less(a, b); });
  return order;
}

void put_ordered(const Bound& bound, int x, int values_out, int indices_out, const Axis& axis, int64_t kept,
                 bool descending) {
  const std::vector<float> values = bound.floats(x);
  std::vector<float> sorted(static_cast<size_t>(axis.outer * kept * axis.inner));
  std::vector<int64_t> indices(sorted.size());
  const Axis short_axis{axis.outer, kept, axis.inner};
  for (int64_t o = 0; o < axis.outer; ++o) {
    for (int64_t in = 0; in < axis.inner; ++in) {
      const std::vector<int64_t> order = order_of(values, axis, o, in, descending);
      for (int64_t i = 0; i < kept; ++i) {
        sorted[short_axis.at(o, i, in)] = values[axis.at(o, order[i], in)];
        indices[short_axis.at(o, i, in)] = order[i];
      }
    }
  }
  bound.put(values_out, sorted);
  bound.put(indices_out, indices);
}

aclnnStatus softmax(const char* op, FakeIn self, int64_t dim, aclTensor* out, bool is_log, uint64_t* size,
                    aclOpExecutor** executor) {
  return plan(op, size, executor, [&](Call& call) {
    const int x = call.in("self", self), y = call.out("out", out);
    call.check();
    const Axis axis = axis_of(call, call.view(x).dims, dim);
    call.run([=](const Bound& bound) {
      std::vector<float> values = bound.floats(x);
      std::vector<double> powers(static_cast<size_t>(axis.length));
      for (int64_t o = 0; o < axis.outer; ++o) {
        for (int64_t in = 0; in < axis.inner; ++in) {
          double top = -INFINITY, total = 0;
          for (int64_t i = 0; i < axis.length; ++i) top = std::max(top, static_cast<double>(values[axis.at(o, i, in)]));
          for (int64_t i = 0; i < axis.length; ++i) total += powers[i] = std::exp(values[axis.at(o, i, in)] - top);
          const double log_total = std::log(total);
          for (int64_t i = 0; i < axis.length; ++i) {
            float& value = values[axis.at(o, i, in)];
            value = static_cast<float>(is_log ? value - top - log_total : powers[i] / total);
          }
        }
      }
      bound.put(y, values);
    });
  });
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

FAKECANN_OP(ReduceSum, FakeIn self, FakeInts dims, bool keep_dims, aclDataType dtype, aclTensor* out) {
  if (out != nullptr && out->view.dtype != dtype)
    return report("aclnnReduceSum", Failure(kBadParameter, "out has the dtype that is asked for"));
  return reduce("ReduceSum", self, dims, keep_dims, out, Fold::kSum, workspace_size, executor);
}

FAKECANN_OP(Mean, FakeIn self, FakeInts dims, bool keep_dims, aclDataType dtype, aclTensor* out) {
  if (out != nullptr && out->view.dtype != dtype)
    return report("aclnnMean", Failure(kBadParameter, "out has the dtype that is asked for"));
  return reduce("Mean", self, dims, keep_dims, out, Fold::kMean, workspace_size, executor);
}

FAKECANN_OP(Amax, FakeIn self, FakeInts dims, bool keep_dims, aclTensor* out) {
  return reduce("Amax", self, dims, keep_dims, out, Fold::kMax, workspace_size, executor);
}

FAKECANN_OP(ArgMax, FakeIn self, int64_t dim, bool keep_dim, aclTensor* out) {
  return plan("ArgMax", workspace_size, executor, [&](Call& call) {
    const int x = call.in("self", self), y = call.out("out", out);
    call.check();
    const Axis axis = axis_of(call, call.view(x).dims, dim);
    call.require(call.view(y).count() == axis.outer * axis.inner, "out has one element for each row");
    call.require(!keep_dim || call.view(y).rank() == call.view(x).rank(), "keepdim keeps the rank");
    call.run([=](const Bound& bound) {
      const std::vector<float> values = bound.floats(x);
      std::vector<int64_t> best(static_cast<size_t>(axis.outer * axis.inner), 0);
      for (int64_t o = 0; o < axis.outer; ++o) {
        for (int64_t in = 0; in < axis.inner; ++in) {
          int64_t& found = best[o * axis.inner + in];
          for (int64_t i = 1; i < axis.length; ++i) {
            const float value = values[axis.at(o, i, in)], top = values[axis.at(o, found, in)];
            if (value > top || (std::isnan(value) && !std::isnan(top))) found = i;
          }
        }
      }
      bound.put(y, best);
    });
  });
}

FAKECANN_OP(Cumsum, FakeIn self, int64_t dim, aclDataType dtype, aclTensor* out) {
  return plan("Cumsum", workspace_size, executor, [&](Call& call) {
    const int x = call.in("self", self), y = call.out("out", out);
    call.check();
    call.require(call.view(y).dtype == dtype, "out has the dtype that is asked for");
    const Axis axis = axis_of(call, call.view(x).dims, dim);
    call.run([=](const Bound& bound) {
      std::vector<float> values = bound.floats(x);
      for (int64_t o = 0; o < axis.outer; ++o) {
        for (int64_t in = 0; in < axis.inner; ++in) {
          double total = 0;
          for (int64_t i = 0; i < axis.length; ++i) {
            total += values[axis.at(o, i, in)];
            values[axis.at(o, i, in)] = static_cast<float>(total);
          }
        }
      }
      bound.put(y, values);
    });
  });
}

FAKECANN_OP(Sort, FakeIn self, bool stable, int64_t dim, bool descending, aclTensor* values, aclTensor* indices) {
  return plan("Sort", workspace_size, executor, [&](Call& call) {
    const int x = call.in("self", self), v = call.out("values", values), i = call.out("indices", indices);
    call.attribute("stable", static_cast<int64_t>(stable));
    call.check();
    const Axis axis = axis_of(call, call.view(x).dims, dim);
    call.run([=](const Bound& bound) { put_ordered(bound, x, v, i, axis, axis.length, descending); });
  });
}

FAKECANN_OP(Topk, FakeIn self, int64_t k, int64_t dim, bool largest, bool sorted, aclTensor* values,
            aclTensor* indices) {
  return plan("Topk", workspace_size, executor, [&](Call& call) {
    const int x = call.in("self", self), v = call.out("values", values), i = call.out("indices", indices);
    call.attribute("sorted", static_cast<int64_t>(sorted));
    call.check();
    const Axis axis = axis_of(call, call.view(x).dims, dim);
    call.require(k >= 0 && k <= axis.length, "k lies within the axis");
    call.require(call.view(v).count() == axis.outer * k * axis.inner, "values hold k elements of each row");
    call.run([=](const Bound& bound) { put_ordered(bound, x, v, i, axis, k, largest); });
  });
}

FAKECANN_OP(Softmax, FakeIn self, int64_t dim, aclTensor* out) {
  return softmax("Softmax", self, dim, out, false, workspace_size, executor);
}

FAKECANN_OP(LogSoftmax, FakeIn self, int64_t dim, aclTensor* out) {
  return softmax("LogSoftmax", self, dim, out, true, workspace_size, executor);
}
