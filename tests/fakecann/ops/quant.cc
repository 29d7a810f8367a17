// SPDX-License-Identifier: Apache-2.0
//
// Quantised activations and weights. Products of int8 are summed exactly.
#include <cmath>
#include <cstring>

#include "abi/ops.h"
#include "nnop/number.h"
#include "ops/matrix.h"

namespace fakecann {
namespace {

// A scale kept as an integer holds the bits of a float32 in its low half.
std::vector<float> scales_of(const Bound& bound, int index) {
  if (is_floating(bound.view(index).dtype)) return bound.floats(index);
  std::vector<float> scales;
  for (const int64_t bits : bound.integers(index)) scales.push_back(bits_to_float(static_cast<uint32_t>(bits)));
  return scales;
}

// A [k, n] view of an operand that may be given transposed.
View oriented(View view, bool is_transposed) {
  if (is_transposed) {
    std::swap(view.dims[view.dims.size() - 1], view.dims[view.dims.size() - 2]);
    std::swap(view.strides[view.strides.size() - 1], view.strides[view.strides.size() - 2]);
  }
  return view;
}

std::vector<int32_t> rows_of_operand(const Bound& bound, int index, bool is_transposed, bool wants_columns) {
  const View view = oriented(bound.view(index), is_transposed);
  const int64_t rows = view.dim(-2), columns = view.dim(-1);
  const std::vector<float> dense = bound.floats(index);
  std::vector<int32_t> out(dense.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t from = is_transposed ? j * rows + i : i * columns + j;
      out[wants_columns ? j * rows + i : i * columns + j] = static_cast<int32_t>(dense[from]);
    }
  }
  return out;
}

struct Quantised {
  int x1, x2, scale, token_scale, bias, out;
  bool transpose1, transpose2;
};

void run_quantised(const Bound& bound, const Quantised& call) {
  const std::vector<int32_t> a = rows_of_operand(bound, call.x1, call.transpose1, false);
  const std::vector<int32_t> b = rows_of_operand(bound, call.x2, call.transpose2, true);
  const int64_t m = bound.view(call.out).dim(-2), n = bound.view(call.out).dim(-1),
                k = static_cast<int64_t>(b.size()) / n;
  const std::vector<float> scale = scales_of(bound, call.scale);
  const std::vector<float> token = call.token_scale < 0 ? std::vector<float>(1, 1.0f) : bound.floats(call.token_scale);
  const std::vector<float> bias = call.bias < 0 ? std::vector<float>() : bound.floats(call.bias);
  const bool is_early_bias = call.bias >= 0 && bound.view(call.bias).dtype == ACL_INT32;
  std::vector<float> out(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      int64_t sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += static_cast<int64_t>(a[i * k + l]) * b[j * k + l];
      if (is_early_bias) sum += static_cast<int64_t>(bias[j]);
      float value = static_cast<float>(sum) * scale[scale.size() == 1 ? 0 : j] * token[token.size() == 1 ? 0 : i];
      if (call.bias >= 0 && !is_early_bias) value += bias[j];
      out[i * n + j] = value;
    }
  }
  bound.put(call.out, out);
}

void check_quantised(const Call& call, const Quantised& setup) {
  const View a = oriented(call.view(setup.x1), setup.transpose1), b = oriented(call.view(setup.x2), setup.transpose2);
  call.require(a.dim(1) == b.dim(0), "the columns of x1 meet the rows of x2");
  call.require(call.view(setup.out).dims == Dims{a.dim(0), b.dim(1)}, "out is [rows of x1, columns of x2]");
  const int64_t scales = call.view(setup.scale).count();
  call.require(scales == 1 || scales == b.dim(1), "the scale of x2 has one element or one for each column");
  if (setup.bias >= 0) call.require(call.view(setup.bias).count() == b.dim(1), "bias has one element for each column");
  if (setup.token_scale >= 0)
    call.require(call.view(setup.token_scale).count() == a.dim(0), "the scale of x1 has one element for each row");
}

// The document takes an empty tensor for one that is left out.
FakeIn unless_empty(FakeIn tensor) {
  return tensor != nullptr && serial_of(tensor) != 0 && tensor->view.count() == 0 ? nullptr : tensor;
}

// Row-wise weights of a 16-bit activation: (w + offset) * scale, in groups along k.
void fill_dequantised(const Bound& bound, int weight, const std::vector<float>& scale, const std::vector<float>& offset,
                      int64_t group, int64_t first, int64_t count, float* rows) {
  const int64_t k = bound.view(weight).dim(0), n = bound.view(weight).dim(1);
  read_columns(bound, weight, 0, first, count, rows);
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t i = 0; i < k; ++i) {
      const size_t at = scale.size() == 1 ? 0 : static_cast<size_t>((group > 0 ? i / group * n : 0) + first + j);
      rows[j * k + i] = (rows[j * k + i] + (offset.empty() ? 0.0f : offset[at])) * scale[at];
    }
  }
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

FAKECANN_OP(DynamicQuant, FakeIn x, FakeIn smoothScales, FakeIn y, FakeIn scale) {
  return plan("DynamicQuant", workspace_size, executor, [&](Call& call) {
    const int a = call.in("x", x);
    call.in("smoothScales", smoothScales);
    const int o = call.out("y", y), s = call.out("scale", scale);
    call.check();
    const int64_t columns = call.view(a).dim(-1);
    call.require(call.view(s).count() * columns == call.view(a).count(), "scale has one element for each row of x");
    call.run([=](const Bound& bound) {
      std::vector<float> values = bound.floats(a), scales;
      for (size_t first = 0; first < values.size(); first += static_cast<size_t>(columns)) {
        float top = 0;
        for (int64_t i = 0; i < columns; ++i) top = std::max(top, std::fabs(values[first + i]));
        scales.push_back(top / 127.0f);
        for (int64_t i = 0; i < columns; ++i)
          values[first + i] = top == 0 ? 0 : std::nearbyint(values[first + i] * 127.0f / top);
      }
      bound.put(o, values);
      bound.put(s, scales);
    });
  });
}

FAKECANN_OP(QuantMatmulV4, FakeIn x1, FakeIn x2, FakeIn scale, FakeIn offset, FakeIn pertokenScale, FakeIn bias,
            bool transposeX1, bool transposeX2, FakeIn out) {
  return plan("QuantMatmulV4", workspace_size, executor, [&](Call& call) {
    Quantised setup{call.in("x1", x1), call.in("x2", x2), call.in("scale", scale), -1, -1, -1,
                    transposeX1,       transposeX2};
    call.in("offset", offset);
    setup.token_scale = call.in("pertokenScale", pertokenScale);
    setup.bias = call.in("bias", bias);
    setup.out = call.out("out", out);
    call.check();
    check_quantised(call, setup);
    call.run([setup](const Bound& bound) { run_quantised(bound, setup); });
  });
}

FAKECANN_OP(QuantMatmulV5, FakeIn x1, FakeIn x2, FakeIn x1Scale, FakeIn x2Scale, FakeIn yScale, FakeIn x1Offset,
            FakeIn x2Offset, FakeIn yOffset, FakeIn bias, bool transposeX1, bool transposeX2, int64_t groupSize,
            FakeIn out) {
  return plan("QuantMatmulV5", workspace_size, executor, [&](Call& call) {
    Quantised setup{call.in("x1", x1), call.in("x2", x2), -1, -1, -1, -1, transposeX1, transposeX2};
    setup.token_scale = call.in("x1Scale", x1Scale);
    setup.scale = call.in("x2Scale", x2Scale);
    call.in("yScale", yScale);
    call.in("x1Offset", unless_empty(x1Offset));
    call.in("x2Offset", unless_empty(x2Offset));
    call.in("yOffset", unless_empty(yOffset));
    setup.bias = call.in("bias", bias);
    setup.out = call.out("out", out);
    call.attribute("groupSize", groupSize);
    call.check();
    check_quantised(call, setup);
    call.run([setup](const Bound& bound) { run_quantised(bound, setup); });
  });
}

FAKECANN_OP(WeightQuantBatchMatmulV2, FakeIn x, FakeIn weight, FakeIn antiquantScale, FakeIn antiquantOffset,
            FakeIn quantScale, FakeIn quantOffset, FakeIn bias, int antiquantGroupSize, FakeIn y) {
  return plan("WeightQuantBatchMatmulV2", workspace_size, executor, [&](Call& call) {
    const int a = call.in("x", x), w = call.in("weight", weight), s = call.in("antiquantScale", antiquantScale);
    const int o = call.in("antiquantOffset", antiquantOffset);
    call.in("quantScale", quantScale);
    call.in("quantOffset", quantOffset);
    const int b = call.in("bias", bias), out = call.out("y", y);
    const int64_t group = call.attribute("antiquantGroupSize", antiquantGroupSize);
    call.check();
    const int64_t k = call.view(w).dim(0), n = call.view(w).dim(1);
    call.require(call.view(a).dim(-1) == k, "the columns of x meet the rows of weight");
    call.require(group == 0 || (group % 32 == 0 && group >= 32 && group <= k - 1),
                 "antiquantGroupSize is 0 or a multiple of 32 below k");
    const int64_t groups = group == 0 ? 1 : (k + group - 1) / group;
    const int64_t scales = call.view(s).count();
    call.require(scales == groups * n || (group == 0 && scales == 1),
                 "antiquantScale has one element for each column and group, or one without groups");
    if (o >= 0) call.require(call.view(o).dims == call.view(s).dims, "antiquantOffset has the shape of antiquantScale");
    if (b >= 0) call.require(call.view(b).count() == n, "bias has one element for each column");
    call.require(call.view(out).count() * k == call.view(a).count() * n, "y is [rows of x, columns of weight]");
    call.run([=](const Bound& bound) {
      const std::vector<float> activation = bound.floats(a), scale = bound.floats(s);
      const std::vector<float> offset = o < 0 ? std::vector<float>() : bound.floats(o);
      const int64_t m = bound.view(a).count() / k;
      std::vector<float> result(static_cast<size_t>(m * n));
      gemm(
          activation.data(), m, n, k,
          [&](int64_t first, int64_t count, float* rows) {
            fill_dequantised(bound, w, scale, offset, group, first, count, rows);
          },
          result.data());
      const std::vector<float> added = b < 0 ? std::vector<float>() : bound.floats(b);
      for (size_t i = 0; b >= 0 && i < result.size(); ++i) result[i] += added[i % static_cast<size_t>(n)];
      bound.put(out, result);
    });
  });
}
