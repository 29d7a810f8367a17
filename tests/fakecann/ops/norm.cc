// SPDX-License-Identifier: Apache-2.0
//
// Norms (Zhang & Sennrich 2019, arXiv:1910.07467; Ba et al. 2016, arXiv:1607.06450) and gated activation.
#include <cmath>

#include "abi/ops.h"
#include "ops/axis.h"

namespace fakecann {
namespace {

// y and 1 / rms of each row.
void rms_norm(const std::vector<float>& x, const std::vector<float>& gamma, double epsilon, std::vector<float>& y,
              std::vector<float>& rstd) {
  const size_t columns = gamma.size(), rows = x.size() / columns;
  y.resize(x.size());
  rstd.resize(rows);
  for (size_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (size_t i = 0; i < columns; ++i) squares += static_cast<double>(x[r * columns + i]) * x[r * columns + i];
    rstd[r] = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(columns) + epsilon));
    for (size_t i = 0; i < columns; ++i) y[r * columns + i] = x[r * columns + i] * rstd[r] * gamma[i];
  }
}

void require_gamma(const Call& call, const View& x, const View& gamma) {
  call.require(gamma.rank() <= x.rank(), "gamma has the last axes of x");
  for (int axis = 1; axis <= gamma.rank(); ++axis) {
    call.require(gamma.dim(-axis) == x.dim(-axis), "gamma has the last axes of x");
  }
}

void require_rstd(const Call& call, const View& x, const View& gamma, const View& rstd) {
  call.require(rstd.count() * gamma.count() == x.count(), "rstd has one element for each row of x");
  call.require(rstd.rank() == x.rank(), "rstd has the rank of x, the normalised axes being 1");
}

// Rounds as a store to `dtype` would.
std::vector<float> rounded(const Bound& bound, int index, const std::vector<float>& values) {
  bound.put(index, values);
  return bound.floats(index);
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

FAKECANN_OP(RmsNorm, FakeIn x, FakeIn gamma, double epsilon, FakeIn y, FakeIn rstd) {
  return plan("RmsNorm", workspace_size, executor, [&](Call& call) {
    const int a = call.in("x", x), g = call.in("gamma", gamma), o = call.out("y", y), r = call.out("rstd", rstd);
    call.check();
    require_gamma(call, call.view(a), call.view(g));
    require_rstd(call, call.view(a), call.view(g), call.view(r));
    call.run([=](const Bound& bound) {
      std::vector<float> out, inverse;
      rms_norm(bound.floats(a), bound.floats(g), epsilon, out, inverse);
      bound.put(o, out);
      bound.put(r, inverse);
    });
  });
}

FAKECANN_OP(AddRmsNorm, FakeIn x1, FakeIn x2, FakeIn gamma, double epsilon, FakeIn y, FakeIn rstd, FakeIn x) {
  return plan("AddRmsNorm", workspace_size, executor, [&](Call& call) {
    const int a = call.in("x1", x1), b = call.in("x2", x2), g = call.in("gamma", gamma);
    const int o = call.out("y", y), r = call.out("rstd", rstd), s = call.out("x", x);
    call.check();
    require_gamma(call, call.view(a), call.view(g));
    require_rstd(call, call.view(a), call.view(g), call.view(r));
    call.run([=](const Bound& bound) {
      std::vector<float> sum = bound.floats(a), out, inverse;
      const std::vector<float> second = bound.floats(b), scale = bound.floats(g);
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += second[i];
      rms_norm(rounded(bound, s, sum), scale, epsilon, out, inverse);
      bound.put(o, out);
      bound.put(r, inverse);
    });
  });
}

FAKECANN_OP(LayerNorm, FakeIn input, FakeInts normalized_shape, FakeIn weight, FakeIn bias, double epsilon,
            aclTensor* out, aclTensor* mean, aclTensor* rstd) {
  return plan("LayerNorm", workspace_size, executor, [&](Call& call) {
    const int x = call.in("input", input), w = call.in("weight", weight), b = call.in("bias", bias);
    const int y = call.out("out", out), m = call.out("mean", mean), r = call.out("rstd", rstd);
    const Dims shape = call.array("normalizedShape", normalized_shape);
    call.check();
    const auto rank = static_cast<int64_t>(shape.size());
    call.require(rank >= 1 && rank <= call.view(x).rank() &&
                     Dims(call.view(x).dims.end() - rank, call.view(x).dims.end()) == shape,
                 "normalizedShape is the end of the input's shape");
    call.run([=](const Bound& bound) {
      std::vector<float> values = bound.floats(x), means, inverses;
      const std::vector<float> scale = w < 0 ? std::vector<float>() : bound.floats(w);
      const std::vector<float> shift = b < 0 ? std::vector<float>() : bound.floats(b);
      const auto columns = static_cast<size_t>(count_of(shape));
      for (size_t first = 0; first < values.size(); first += columns) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < columns; ++i) sum += values[first + i];
        const double average = sum / static_cast<double>(columns);
        for (size_t i = 0; i < columns; ++i) squares += (values[first + i] - average) * (values[first + i] - average);
        const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(columns) + epsilon);
        for (size_t i = 0; i < columns; ++i) {
          const double normal = (values[first + i] - average) * inverse;
          values[first + i] = static_cast<float>(normal * (w < 0 ? 1.0 : scale[i]) + (b < 0 ? 0.0 : shift[i]));
        }
        means.push_back(static_cast<float>(average));
        inverses.push_back(static_cast<float>(inverse));
      }
      bound.put(y, values);
      if (m >= 0) bound.put(m, means);
      if (r >= 0) bound.put(r, inverses);
    });
  });
}

// The first half of the axis, through x * sigmoid(x), times the second.
FAKECANN_OP(SwiGlu, FakeIn x, int64_t dim, FakeIn out) {
  return plan("SwiGlu", workspace_size, executor, [&](Call& call) {
    const int a = call.in("x", x), y = call.out("out", out);
    call.check();
    const Axis axis = axis_of(call, call.view(a).dims, dim);
    call.require(axis.length % 2 == 0, "the axis that is cut in two is even");
    call.require(call.view(y).count() * 2 == call.view(a).count(), "out is half of x");
    call.run([=](const Bound& bound) {
      const std::vector<float> values = bound.floats(a);
      const Axis half{axis.outer, axis.length / 2, axis.inner};
      std::vector<float> result(values.size() / 2);
      for (int64_t o = 0; o < half.outer; ++o) {
        for (int64_t i = 0; i < half.length; ++i) {
          for (int64_t in = 0; in < half.inner; ++in) {
            const double gate = values[axis.at(o, i, in)], up = values[axis.at(o, i + half.length, in)];
            result[half.at(o, i, in)] = static_cast<float>(gate / (1.0 + std::exp(-gate)) * up);
          }
        }
      }
      bound.put(y, result);
    });
  });
}
