// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "reference/ops.h"
#include "suite.h"

namespace turbomind::conformance {
namespace {

struct Shape {
  int64_t rows;
  int64_t cols;
  int64_t gap;  // elements between rows
};

constexpr Shape kShapes[] = {{0, 8, 0}, {1, 1, 0}, {1, 64, 0}, {3, 7, 0}, {5, 33, 3}, {17, 128, 128}, {64, 576, 0}};

std::string label(const Shape& s) {
  return std::to_string(s.rows) + "x" + std::to_string(s.cols) + (s.gap ? "_gap" + std::to_string(s.gap) : "");
}

const char* kind_name(tm_activation_kind kind) {
  constexpr const char* kNames[] = {"none", "silu", "gelu_tanh", "gelu_erf", "quick_gelu", "relu"};
  return kNames[kind];
}

// Where the output lies.
enum class Target { kSeparate, kFirst, kSecond };

void build_add(Case& c, DType dtype, const Shape& s, Target target) {
  TestTensor& a = target == Target::kFirst ? c.in_out("a", dtype, {s.rows, s.cols}, s.gap)
                                           : c.input("a", dtype, {s.rows, s.cols}, s.gap);
  TestTensor& b = target == Target::kSecond ? c.in_out("b", dtype, {s.rows, s.cols}, s.gap)
                                            : c.input("b", dtype, {s.rows, s.cols}, s.gap);
  TestTensor& out = target == Target::kFirst    ? a
                    : target == Target::kSecond ? b
                                                : c.output("out", dtype, {s.rows, s.cols}, s.gap);
  c.independent_rows = s.rows;
  c.issue = [&c, &a, &b, &out](RowRange r) {
    c.call(
        TM_OP_add, c.op().add,
        tm_add_args{.a = a.rows(r.begin, r.count), .b = b.rows(r.begin, r.count), .out = out.rows(r.begin, r.count)});
  };
  c.reference = [&a, &b, &out] {
    for (int64_t i = 0; i < a.size(); ++i) out.expected.push_back(a.get(i) + b.get(i));
  };
}

void build_special_values(Case& c, DType dtype) {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> specials{inf, -inf, nan, 0.0, -0.0, 1.0, -1.0, 0.5};
  const auto count = static_cast<int64_t>(specials.size());
  TestTensor& a = c.input("a", dtype, {count, count});
  TestTensor& b = c.input("b", dtype, {count, count});
  TestTensor& out = c.output("out", dtype, {count, count});
  c.fill = [&a, &b, specials, count] {
    for (int64_t i = 0; i < count * count; ++i) {
      a.set(i, specials[static_cast<size_t>(i / count)]);
      b.set(i, specials[static_cast<size_t>(i % count)]);
    }
  };
  c.issue = [&c, &a, &b, &out](RowRange) {
    c.call(TM_OP_add, c.op().add, tm_add_args{.a = a.view(), .b = b.view(), .out = out.view()});
  };
  c.reference = [&a, &b, &out] {
    for (int64_t i = 0; i < a.size(); ++i) out.expected.push_back(a.get(i) + b.get(i));
  };
}

void build_activation(Case& c, DType dtype, const Shape& s, tm_activation_kind kind, bool in_place) {
  TestTensor& x =
      in_place ? c.in_out("x", dtype, {s.rows, s.cols}, s.gap) : c.input("x", dtype, {s.rows, s.cols}, s.gap);
  TestTensor& out = in_place ? x : c.output("out", dtype, {s.rows, s.cols}, s.gap);
  c.independent_rows = s.rows;
  c.fill = [&c, &x] { x.fill_normal(c.random, 3); };
  c.issue = [&c, &x, &out, kind](RowRange r) {
    c.call(TM_OP_activation, c.op().activation,
           tm_activation_args{.x = x.rows(r.begin, r.count), .kind = kind, .out = out.rows(r.begin, r.count)});
  };
  c.reference = [&x, &out, kind] {
    for (int64_t i = 0; i < x.size(); ++i) out.expected.push_back(reference::activate(kind, x.get(i)));
  };
}

// x reaches beyond the cap on both sides, where the curve is flat, and lies close to 0, where it is straight.
void build_softcap(Case& c, const Shape& s, double cap, bool in_place) {
  TestTensor& x =
      in_place ? c.in_out("x", TM_F32, {s.rows, s.cols}, s.gap) : c.input("x", TM_F32, {s.rows, s.cols}, s.gap);
  TestTensor& out = in_place ? x : c.output("out", TM_F32, {s.rows, s.cols}, s.gap);
  c.independent_rows = s.rows;
  c.fill = [&c, &x, cap] { x.fill_normal(c.random, 2 * cap); };
  c.issue = [&c, &x, &out, cap](RowRange r) {
    c.call(TM_OP_softcap, c.op().softcap,
           tm_softcap_args{
               .x = x.rows(r.begin, r.count), .cap = static_cast<float>(cap), .out = out.rows(r.begin, r.count)});
  };
  c.reference = [&x, &out, cap] {
    for (int64_t i = 0; i < x.size(); ++i) out.expected.push_back(cap * std::tanh(x.get(i) / cap));
  };
}

// The tails of each curve, where a series or a table goes wrong first.
void build_activation_range(Case& c, DType dtype, tm_activation_kind kind) {
  constexpr int64_t kCount = 401;
  TestTensor& x = c.input("x", dtype, {1, kCount});
  TestTensor& out = c.output("out", dtype, {1, kCount});
  c.fill = [&x] {
    for (int64_t i = 0; i < kCount; ++i) x.set(i, static_cast<double>(i - kCount / 2) / 2);
  };
  c.issue = [&c, &x, &out, kind](RowRange) {
    c.call(TM_OP_activation, c.op().activation, tm_activation_args{.x = x.view(), .kind = kind, .out = out.view()});
  };
  c.reference = [&x, &out, kind] {
    for (int64_t i = 0; i < kCount; ++i) out.expected.push_back(reference::activate(kind, x.get(i)));
  };
}

// gate and up are the halves of one [rows, 2 * cols] tensor, as a fused linear leaves them.
void build_gated_activation(Case& c, DType dtype, const Shape& s, tm_activation_kind kind, Target target) {
  TestTensor& both = target == Target::kSeparate ? c.input("gate_up", dtype, {s.rows, 2 * s.cols}, s.gap)
                                                 : c.in_out("gate_up", dtype, {s.rows, 2 * s.cols}, s.gap);
  TestTensor& out = target == Target::kSeparate ? c.output("out", dtype, {s.rows, s.cols}) : both;
  c.independent_rows = s.rows;
  c.issue = [&c, &both, &out, s, kind, target](RowRange r) {
    const Tensor gate = column_slice(both.rows(r.begin, r.count), 0, s.cols);
    const Tensor up = column_slice(both.rows(r.begin, r.count), s.cols, s.cols);
    const Tensor to = target == Target::kFirst ? gate : target == Target::kSecond ? up : out.rows(r.begin, r.count);
    c.call(TM_OP_gated_activation, c.op().gated_activation,
           tm_gated_activation_args{.gate = gate, .up = up, .kind = kind, .out = to});
  };
  c.reference = [&both, &out, s, kind, target] {
    if (target != Target::kSeparate) out.expected = both.values();
    for (int64_t i = 0; i < s.rows * s.cols; ++i) {
      const int64_t gate = i / s.cols * 2 * s.cols + i % s.cols;
      const double value = reference::activate(kind, both.get(gate)) * both.get(gate + s.cols);
      if (target == Target::kSeparate) {
        out.expected.push_back(value);
      } else {
        out.expected[static_cast<size_t>(target == Target::kFirst ? gate : gate + s.cols)] = value;
      }
    }
  };
}

void build_cast(Case& c, DType from, DType to, const Shape& s) {
  TestTensor& in = c.input("in", from, {s.rows, s.cols}, s.gap);
  TestTensor& out = c.output("out", to, {s.rows, s.cols}, s.gap / 2);
  c.arithmetic = Arithmetic::kExact;
  c.independent_rows = s.rows;
  c.fill = [&c, &in] {
    // Ties and saturation matter: halves, and values beyond int8.
    for (int64_t i = 0; i < in.size(); ++i) in.set(i, static_cast<double>(c.random.integer(-800, 800)) / 4);
    if (is_float(in.dtype()) && in.size() > 1) in.set(0, 1.0 + 0x1p-9 + 0x1p-10);
  };
  c.issue = [&c, &in, &out](RowRange r) {
    c.call(TM_OP_cast, c.op().cast, tm_cast_args{.in = in.rows(r.begin, r.count), .out = out.rows(r.begin, r.count)});
  };
  c.reference = [&in, &out, to] {
    for (int64_t i = 0; i < in.size(); ++i) out.expected.push_back(reference::round_to(to, in.get(i)));
  };
}

}  // namespace

void add_elementwise_cases(Suite& suite, const Session& session) {
  for (const Shape& s : kShapes) {
    suite.add("softcap", "f32", label(s), [=](Case& c) { build_softcap(c, s, 30, false); });
  }
  suite.add("softcap", "f32", "in_place", [](Case& c) { build_softcap(c, kShapes[4], 1.5, true); });
  const std::vector<DType> dtypes = session.activation_dtypes();
  for (const DType dtype : dtypes) {
    const std::string name = dtype_name(dtype);
    for (const Shape& s : kShapes) {
      suite.add("add", name, label(s), [=](Case& c) { build_add(c, dtype, s, Target::kSeparate); });
      suite.add("activation", name, label(s) + "_silu",
                [=](Case& c) { build_activation(c, dtype, s, TM_ACTIVATION_SILU, false); });
      suite.add("gated_activation", name, label(s) + "_silu",
                [=](Case& c) { build_gated_activation(c, dtype, s, TM_ACTIVATION_SILU, Target::kSeparate); });
    }
    const Shape s = kShapes[4];
    suite.add("add", name, "into_a", [=](Case& c) { build_add(c, dtype, s, Target::kFirst); });
    suite.add("add", name, "into_b", [=](Case& c) { build_add(c, dtype, s, Target::kSecond); });
    suite.add("add", name, "special_values", [=](Case& c) { build_special_values(c, dtype); });
    suite.add("activation", name, "in_place",
              [=](Case& c) { build_activation(c, dtype, s, TM_ACTIVATION_GELU_TANH, true); });
    suite.add("gated_activation", name, "into_gate",
              [=](Case& c) { build_gated_activation(c, dtype, s, TM_ACTIVATION_SILU, Target::kFirst); });
    suite.add("gated_activation", name, "into_up",
              [=](Case& c) { build_gated_activation(c, dtype, s, TM_ACTIVATION_SILU, Target::kSecond); });
    for (int k = TM_ACTIVATION_NONE; k <= TM_ACTIVATION_RELU; ++k) {
      const auto kind = static_cast<tm_activation_kind>(k);
      suite.add("activation", name, std::string("range_") + kind_name(kind),
                [=](Case& c) { build_activation_range(c, dtype, kind); });
      suite.add("gated_activation", name, std::string("kind_") + kind_name(kind),
                [=](Case& c) { build_gated_activation(c, dtype, s, kind, Target::kSeparate); });
    }
    for (const DType to : dtypes) {
      suite.add("cast", name, std::string("to_") + dtype_name(to) + "_" + label(s),
                [=](Case& c) { build_cast(c, dtype, to, s); });
    }
    suite.add("cast", name, "to_i8", [=](Case& c) { build_cast(c, dtype, TM_I8, kShapes[3]); });
    suite.add("cast", name, "to_i32", [=](Case& c) { build_cast(c, dtype, TM_I32, kShapes[3]); });
    suite.add("cast", name, "from_i32", [=](Case& c) { build_cast(c, TM_I32, dtype, kShapes[3]); });
    suite.add("cast", name, "no_rows", [=](Case& c) { build_cast(c, dtype, TM_F32, kShapes[0]); });
  }
}

}  // namespace turbomind::conformance
