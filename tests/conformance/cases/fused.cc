// SPDX-License-Identifier: Apache-2.0
//
// Optional fusions: against the reference, and against the same work done by the backend's required ops.
#include "reference/ops.h"
#include "suite.h"

namespace turbomind::conformance {
namespace {

// A composition rounds in between, a fusion need not.
Tolerance norm_tolerance(DType dtype) {
  return dtype == TM_F32 ? tolerance(Arithmetic::kFloat32, TM_F32) : tolerance(Arithmetic::kHalf, dtype);
}

template <class Slot>
void require_slot(Slot slot, tm_op_id op) {
  if (!slot) throw NotOffered{std::string("the ") + op_name(op) + " slot is NULL"};
}

void build_add_rms_norm(Case& c, DType dtype, int64_t rows, int64_t width, int64_t gap) {
  require_slot(c.op().add_rms_norm, TM_OP_add_rms_norm);
  TestTensor& x = c.input("x", dtype, {rows, width}, gap);
  TestTensor& residual = c.in_out("residual", dtype, {rows, width}, gap);
  TestTensor& residual_composed = c.in_out("residual_composed", dtype, {rows, width}, gap);
  TestTensor& weight = c.input("weight", TM_F32, {width});
  TestTensor& out = c.output("out", dtype, {rows, width});
  TestTensor& out_composed = c.output("out_composed", dtype, {rows, width});
  c.independent_rows = rows;
  c.fill = [&c, &x, &residual, &residual_composed, &weight] {
    x.fill_normal(c.random);
    residual.fill_normal(c.random);
    residual_composed.set_all(residual.values());
    weight.fill_uniform(c.random, 0.5, 1.5);
  };
  c.issue = [&c, &x, &residual, &residual_composed, &weight, &out, &out_composed](RowRange r) {
    const Tensor in = x.rows(r.begin, r.count);
    const Tensor sum = residual_composed.rows(r.begin, r.count);
    c.call(TM_OP_add_rms_norm, c.op().add_rms_norm,
           tm_add_rms_norm_args{.x = in,
                                .residual = residual.rows(r.begin, r.count),
                                .weight = weight.view(),
                                .eps = 1e-5f,
                                .out = out.rows(r.begin, r.count)});
    c.call(TM_OP_add, c.op().add, tm_add_args{.a = in, .b = sum, .out = sum});
    c.call(
        TM_OP_rms_norm, c.op().rms_norm,
        tm_rms_norm_args{.x = sum, .weight = weight.view(), .eps = 1e-5f, .out = out_composed.rows(r.begin, r.count)});
  };
  c.reference = [&x, &residual, &weight, &out] {
    for (int64_t i = 0; i < x.size(); ++i) residual.expected.push_back(x.get(i) + residual.get(i));
    out.expected = reference::rms_norm(residual.expected, weight.values(), 1e-5);
  };
  c.verify = [&residual, &residual_composed, &out, &out_composed, dtype] {
    const std::string wrong = verify_pair(residual, residual_composed, norm_tolerance(dtype));
    return wrong.empty() ? verify_pair(out, out_composed, norm_tolerance(dtype)) : wrong;
  };
}

struct GatedShape {
  int64_t rows;
  int64_t cols = 256;
  int64_t n = 70;
  tm_activation_kind kind = TM_ACTIVATION_SILU;
};

void build_linear_gated(Case& c, DType dtype, tm_weight_format gate_format, tm_weight_format up_format,
                        const GatedShape& s, bool with_bias) {
  const int64_t rows = s.rows;
  const tm_activation_kind kind = s.kind;
  require_slot(c.op().linear_gated_activation, TM_OP_linear_gated_activation);
  TestTensor& x = c.input("x", dtype, {rows, s.cols});
  TestWeight& gate = c.weight(gate_format, s.n, s.cols, {.activation = dtype});
  TestWeight& up = c.weight(up_format, s.n, s.cols, {.activation = dtype});
  TestTensor& gate_bias = c.input("gate_bias", TM_F32, {s.n});
  TestTensor& up_bias = c.input("up_bias", TM_F32, {s.n});
  TestTensor& gate_out = c.output("gate_out", dtype, {rows, s.n});
  TestTensor& up_out = c.output("up_out", dtype, {rows, s.n});
  TestTensor& out = c.output("out", dtype, {rows, s.n});
  TestTensor& out_composed = c.output("out_composed", dtype, {rows, s.n});
  c.independent_rows = rows;
  const auto bias = [with_bias](const TestTensor& tensor) { return with_bias ? tensor.view() : Tensor{}; };
  c.issue = [&, bias, kind](RowRange r) {
    const Tensor in = x.rows(r.begin, r.count);
    c.call(TM_OP_linear_gated_activation, c.op().linear_gated_activation,
           tm_linear_gated_activation_args{.x = in,
                                           .gate = gate.handle(),
                                           .up = up.handle(),
                                           .gate_bias = bias(gate_bias),
                                           .up_bias = bias(up_bias),
                                           .kind = kind,
                                           .out = out.rows(r.begin, r.count)});
    c.call(TM_OP_linear, c.op().linear,
           tm_linear_args{.x = in,
                          .num_weights = 2,
                          .weight = {gate.handle(), up.handle()},
                          .bias = {bias(gate_bias), bias(up_bias)},
                          .out = {gate_out.rows(r.begin, r.count), up_out.rows(r.begin, r.count)}});
    c.call(TM_OP_gated_activation, c.op().gated_activation,
           tm_gated_activation_args{.gate = gate_out.rows(r.begin, r.count),
                                    .up = up_out.rows(r.begin, r.count),
                                    .kind = kind,
                                    .out = out_composed.rows(r.begin, r.count)});
  };
  c.reference = [&, with_bias, kind, cols = s.cols] {
    const auto half = [&](const TestWeight& weight, const TestTensor& b) {
      return reference::linear(x.values(), weight.values, with_bias ? b.values() : reference::Values{}, cols,
                               TM_ACTIVATION_NONE);
    };
    const reference::Values gates = half(gate, gate_bias);
    const reference::Values ups = half(up, up_bias);
    for (size_t i = 0; i < gates.size(); ++i) {
      out.expected.push_back(reference::activate(kind, gates[i]) * ups[i]);
    }
  };
  // Errors of two linears multiplied.
  const bool exact = gate_format == TM_WEIGHT_F32 && up_format == TM_WEIGHT_F32 && dtype == TM_F32;
  const Tolerance bound = exact ? Tolerance{1e-10, 5e-5, 2e-5} : Tolerance{1e-3, 0.03, 0.25};
  c.verify = [&out, &out_composed, bound] { return verify_pair(out, out_composed, bound); };
}

}  // namespace

void add_fused_cases(Suite& suite, const Session& session) {
  for (const DType dtype : session.activation_dtypes()) {
    const std::string name = dtype_name(dtype);
    suite.add("add_rms_norm", name, "no_rows", [=](Case& c) { build_add_rms_norm(c, dtype, 0, 64, 0); });
    suite.add("add_rms_norm", name, "rows5x100", [=](Case& c) { build_add_rms_norm(c, dtype, 5, 100, 0); });
    suite.add("add_rms_norm", name, "rows3x576_gap64", [=](Case& c) { build_add_rms_norm(c, dtype, 3, 576, 64); });
    suite.add("add_rms_norm", name, "rows2x8200", [=](Case& c) { build_add_rms_norm(c, dtype, 2, 8200, 0); });
    suite.add("add_rms_norm", name, "rows1100x64", [=](Case& c) { build_add_rms_norm(c, dtype, 1100, 64, 0); });
    const auto add_gated = [&](const std::string& what, tm_weight_format gate, tm_weight_format up,
                               const GatedShape& shape, bool bias) {
      suite.add("linear_gated_activation", name, what,
                [=](Case& c) { build_linear_gated(c, dtype, gate, up, shape, bias); });
    };
    add_gated("no_rows", TM_WEIGHT_F32, TM_WEIGHT_F32, {.rows = 0}, false);
    add_gated("f32", TM_WEIGHT_F32, TM_WEIGHT_F32, {.rows = 5}, false);
    add_gated("f32_bias", TM_WEIGHT_F32, TM_WEIGHT_F32, {.rows = 3}, true);
    add_gated("q4_1", TM_WEIGHT_GGUF_Q4_1, TM_WEIGHT_GGUF_Q4_1, {.rows = 1}, false);
    add_gated("q4_k_q6_k", TM_WEIGHT_GGUF_Q4_K, TM_WEIGHT_GGUF_Q6_K, {.rows = 18}, false);
    // Chunks of prefill, where a back end may have a kernel of its own: ends inside of its tiles.
    add_gated("rows3210", TM_WEIGHT_F32, TM_WEIGHT_F32, {.rows = 3210, .cols = 72, .n = 152}, false);
    add_gated("rows3210_gelu_tanh", TM_WEIGHT_F32, TM_WEIGHT_F32,
              {.rows = 3210, .cols = 72, .n = 152, .kind = TM_ACTIVATION_GELU_TANH}, false);
  }
}

}  // namespace turbomind::conformance
