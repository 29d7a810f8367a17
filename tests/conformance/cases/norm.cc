// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "reference/ops.h"
#include "suite.h"

namespace turbomind::conformance {
namespace {

struct NormCase {
  int64_t rows;
  int64_t heads;  // 0: [rows, width]
  int64_t width;
  int64_t gap;
  double eps = 1e-5;
  double scale = 1;  // standard deviation of x
};

constexpr NormCase kNormCases[] = {
    {0, 0, 64, 0},
    {1, 0, 1, 0},
    {1, 0, 576, 0},
    {3, 0, 7, 0},
    {5, 0, 100, 4},
    {33, 0, 640, 0},
    {2, 0, 2048, 64},
    {2, 0, 8200, 0},
    {1100, 0, 64, 0},  // more rows than a GPU works on at once
    {3, 4, 64, 0},
    {7, 3, 80, 240},
    {2, 0, 64, 0, 1e-6, 1e-4},
    {2, 0, 64, 0, 1e-6, 200},
};

std::string label(const NormCase& p) {
  std::string text =
      std::to_string(p.rows) + "x" + (p.heads ? std::to_string(p.heads) + "x" : "") + std::to_string(p.width);
  if (p.gap) text += "_gap" + std::to_string(p.gap);
  if (p.scale != 1) text += p.scale < 1 ? "_small" : "_large";
  return text;
}

std::vector<int64_t> shape(const NormCase& p) {
  return p.heads ? std::vector<int64_t>{p.rows, p.heads, p.width} : std::vector<int64_t>{p.rows, p.width};
}

void build_rms_norm(Case& c, DType dtype, const NormCase& p, bool in_place, bool poison_row) {
  TestTensor& x = in_place ? c.in_out("x", dtype, shape(p), p.gap) : c.input("x", dtype, shape(p), p.gap);
  TestTensor& weight = c.input("weight", TM_F32, {p.width});
  TestTensor& out = in_place ? x : c.output("out", dtype, shape(p));
  c.independent_rows = p.rows;
  c.fill = [&c, &x, &weight, p, poison_row] {
    x.fill_normal(c.random, p.scale);
    weight.fill_uniform(c.random, 0.5, 1.5);
    if (poison_row) x.set(0, std::numeric_limits<double>::quiet_NaN());
  };
  c.issue = [&c, &x, &weight, &out, p](RowRange r) {
    c.call(TM_OP_rms_norm, c.op().rms_norm,
           tm_rms_norm_args{.x = x.rows(r.begin, r.count),
                            .weight = weight.view(),
                            .eps = static_cast<float>(p.eps),
                            .out = out.rows(r.begin, r.count)});
  };
  c.reference = [&x, &weight, &out, p] { out.expected = reference::rms_norm(x.values(), weight.values(), p.eps); };
}

void build_layer_norm(Case& c, DType dtype, const NormCase& p, bool with_bias, bool in_place, double mean) {
  TestTensor& x = in_place ? c.in_out("x", dtype, shape(p), p.gap) : c.input("x", dtype, shape(p), p.gap);
  TestTensor& weight = c.input("weight", TM_F32, {p.width});
  TestTensor& bias = c.input("bias", TM_F32, {p.width});
  TestTensor& out = in_place ? x : c.output("out", dtype, shape(p));
  c.independent_rows = p.rows;
  c.fill = [&c, &x, &weight, &bias, p, mean] {
    for (int64_t i = 0; i < x.size(); ++i) x.set(i, mean + p.scale * c.random.normal());
    weight.fill_uniform(c.random, 0.5, 1.5);
    bias.fill_normal(c.random, 0.3);
  };
  c.issue = [&c, &x, &weight, &bias, &out, p, with_bias](RowRange r) {
    c.call(TM_OP_layer_norm, c.op().layer_norm,
           tm_layer_norm_args{.x = x.rows(r.begin, r.count),
                              .weight = weight.view(),
                              .bias = with_bias ? bias.view() : Tensor{},
                              .eps = static_cast<float>(p.eps),
                              .out = out.rows(r.begin, r.count)});
  };
  c.reference = [&x, &weight, &bias, &out, p, with_bias] {
    out.expected =
        reference::layer_norm(x.values(), weight.values(), with_bias ? bias.values() : reference::Values{}, p.eps);
  };
}

}  // namespace

void add_norm_cases(Suite& suite, const Session& session) {
  for (const DType dtype : session.activation_dtypes()) {
    const std::string name = dtype_name(dtype);
    for (const NormCase& p : kNormCases) {
      suite.add("rms_norm", name, label(p), [=](Case& c) { build_rms_norm(c, dtype, p, false, false); });
      if (p.heads || p.width == 1) continue;
      suite.add("layer_norm", name, label(p), [=](Case& c) { build_layer_norm(c, dtype, p, true, false, 0); });
    }
    const NormCase odd{.rows = 5, .heads = 0, .width = 100, .gap = 4};
    const NormCase heads{.rows = 7, .heads = 3, .width = 80, .gap = 240};
    suite.add("rms_norm", name, "in_place", [=](Case& c) { build_rms_norm(c, dtype, odd, true, false); });
    suite.add("rms_norm", name, "in_place_heads", [=](Case& c) { build_rms_norm(c, dtype, heads, true, false); });
    suite.add("rms_norm", name, "nan_stays_in_its_row", [=](Case& c) { build_rms_norm(c, dtype, odd, false, true); });
    suite.add("layer_norm", name, "without_bias", [=](Case& c) { build_layer_norm(c, dtype, odd, false, false, 0); });
    suite.add("layer_norm", name, "in_place", [=](Case& c) { build_layer_norm(c, dtype, odd, true, true, 0); });
    // A one-pass variance in float32 loses all its digits here, two passes some.
    suite.add("layer_norm", name, "large_mean", [=](Case& c) {
      build_layer_norm(c, dtype, odd, true, false, 1000);
      c.tolerance = Tolerance{1e-4, 1e-2, 5e-3};
    });
  }
}

}  // namespace turbomind::conformance
