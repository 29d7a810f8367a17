// SPDX-License-Identifier: Apache-2.0
//
// Optional fusions: against the reference, and against the same work done by the backend's required ops.
#include <cmath>
#include <memory>

#include "paged.h"

namespace turbomind::conformance {
namespace {

// One result of the fusion and of its composition.
struct Pair {
  TestTensor& fused;
  TestTensor& composed;
};

// Both must match the reference (fused.expected), and each other.
std::string verify_pairs(const std::vector<Pair>& pairs, const Tolerance& bound) {
  for (const Pair& pair : pairs) {
    const reference::Values fused = pair.fused.results();
    const reference::Values composed = pair.composed.results();
    if (std::string wrong = compare(fused, pair.fused.expected, bound); !wrong.empty()) {
      return pair.fused.name() + ": " + wrong;
    }
    if (std::string wrong = compare(fused, composed, bound); !wrong.empty()) {
      return pair.fused.name() + " against its composition: " + wrong;
    }
  }
  return {};
}

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
    return verify_pairs({{residual, residual_composed}, {out, out_composed}}, norm_tolerance(dtype));
  };
}

void build_linear_gated(Case& c, DType dtype, tm_weight_format gate_format, tm_weight_format up_format, int64_t rows,
                        bool with_bias) {
  constexpr int64_t kCols = 256;
  constexpr int64_t kN = 70;
  require_slot(c.op().linear_gated_activation, TM_OP_linear_gated_activation);
  TestTensor& x = c.input("x", dtype, {rows, kCols});
  TestWeight& gate = c.weight(gate_format, kN, kCols);
  TestWeight& up = c.weight(up_format, kN, kCols);
  TestTensor& gate_bias = c.input("gate_bias", TM_F32, {kN});
  TestTensor& up_bias = c.input("up_bias", TM_F32, {kN});
  TestTensor& gate_out = c.output("gate_out", dtype, {rows, kN});
  TestTensor& up_out = c.output("up_out", dtype, {rows, kN});
  TestTensor& out = c.output("out", dtype, {rows, kN});
  TestTensor& out_composed = c.output("out_composed", dtype, {rows, kN});
  c.independent_rows = rows;
  const auto bias = [with_bias](const TestTensor& tensor) { return with_bias ? tensor.view() : Tensor{}; };
  c.issue = [&, bias](RowRange r) {
    const Tensor in = x.rows(r.begin, r.count);
    c.call(TM_OP_linear_gated_activation, c.op().linear_gated_activation,
           tm_linear_gated_activation_args{.x = in,
                                           .gate = gate.handle(),
                                           .up = up.handle(),
                                           .gate_bias = bias(gate_bias),
                                           .up_bias = bias(up_bias),
                                           .kind = TM_ACTIVATION_SILU,
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
                                    .kind = TM_ACTIVATION_SILU,
                                    .out = out_composed.rows(r.begin, r.count)});
  };
  c.reference = [&, with_bias] {
    const auto half = [&](const TestWeight& weight, const TestTensor& b) {
      return reference::linear(x.values(), weight.values, with_bias ? b.values() : reference::Values{}, kCols,
                               TM_ACTIVATION_NONE);
    };
    const reference::Values gates = half(gate, gate_bias);
    const reference::Values ups = half(up, up_bias);
    for (size_t i = 0; i < gates.size(); ++i) {
      out.expected.push_back(reference::activate(TM_ACTIVATION_SILU, gates[i]) * ups[i]);
    }
  };
  // Errors of two linears multiplied.
  const bool exact = gate_format == TM_WEIGHT_F32 && up_format == TM_WEIGHT_F32 && dtype == TM_F32;
  const Tolerance bound = exact ? Tolerance{1e-10, 5e-5, 2e-5} : Tolerance{1e-3, 0.03, 0.25};
  c.verify = [&out, &out_composed, bound] { return verify_pairs({{out, out_composed}}, bound); };
}

struct FusedAttentionState {
  FusedAttentionState(Case& c, DType dtype, const tm_kv_spec& spec, int64_t blocks)
      : fused(c, dtype, spec, blocks), composed(c, dtype, spec, blocks) {}
  PagedCache fused;
  PagedCache composed;
};

// One prefill chunk; what was written is read back by attention.
void build_qk_norm_rope_kv_write(Case& c, const Session& session, DType dtype, DType kv_dtype, bool norms,
                                 tm_rope_style style) {
  require_slot(c.op().qk_norm_rope_kv_write, TM_OP_qk_norm_rope_kv_write);
  constexpr int64_t kTokens = 11;
  constexpr int64_t kHeads = 4;
  constexpr int64_t kKvHeads = 2;
  constexpr int64_t kDim = 64;
  constexpr double kEps = 1e-6;
  const tm_kv_spec spec{.num_kv_heads = kKvHeads,
                        .head_dim_k = kDim,
                        .head_dim_v = kDim,
                        .block_size = session.device.props().preferred_kv_block_size,
                        .dtype = kv_dtype};
  const int64_t blocks = (kTokens + spec.block_size - 1) / spec.block_size;
  auto state = std::make_shared<FusedAttentionState>(c, dtype, spec, blocks);
  TestTensor& q = c.in_out("q", dtype, {kTokens, kHeads, kDim});
  TestTensor& q_composed = c.in_out("q_composed", dtype, {kTokens, kHeads, kDim});
  // The fusion may leave k as it is or rotated: nothing is promised about it, so it is not compared.
  TestTensor& k = c.in_out("k", dtype, {kTokens, kKvHeads, kDim});
  TestTensor& k_composed = c.in_out("k_composed", dtype, {kTokens, kKvHeads, kDim});
  TestTensor& v = c.input("v", dtype, {kTokens, kKvHeads, kDim});
  TestTensor& q_weight = c.input("q_norm_weight", TM_F32, {kDim});
  TestTensor& k_weight = c.input("k_norm_weight", TM_F32, {kDim});
  TestTensor& positions = c.input("positions", TM_I32, {kTokens});
  TestTensor& table = c.input("cos_sin", TM_F32, {64, kDim});
  TestTensor& probe = c.input("probe", dtype, {kTokens, kHeads, kDim});
  TestTensor& seen = c.output("seen", dtype, {kTokens, kHeads, kDim});
  TestTensor& seen_composed = c.output("seen_composed", dtype, {kTokens, kHeads, kDim});
  TestPlan& plan =
      c.plan({.max_tokens = kTokens, .max_seqs = 1, .max_blocks_per_seq = blocks, .block_size = spec.block_size});
  std::vector<int64_t> order;
  for (int64_t b = blocks; b-- > 0;) order.push_back(b);
  plan.set({kTokens}, {kTokens}, {order});

  c.fill = [&, state] {
    for (TestTensor* tensor : {&q, &k, &v, &probe}) tensor->fill_normal(c.random);
    q_composed.set_all(q.values());
    k_composed.set_all(k.values());
    q_weight.fill_uniform(c.random, 0.5, 1.5);
    k_weight.fill_uniform(c.random, 0.5, 1.5);
    for (int64_t i = 0; i < kTokens; ++i) positions.set(i, static_cast<double>(i + c.random.integer(0, 50)));
    for (int64_t p = 0; p < 64; ++p) {
      for (int64_t i = 0; i < kDim / 2; ++i) {
        const double angle = static_cast<double>(p) / std::pow(100.0, static_cast<double>(i) / (kDim / 2));
        table.set(p * kDim + i, std::cos(angle));
        table.set(p * kDim + kDim / 2 + i, std::sin(angle));
      }
    }
  };
  const auto rope_args = [&, style](TestTensor& q_tensor, TestTensor& k_tensor) {
    return tm_rope_args{.struct_size = sizeof(tm_rope_args),
                        .q = q_tensor.view(),
                        .k = k_tensor.view(),
                        .positions = positions.view(),
                        .cos_sin = table.view(),
                        .rotary_dim = kDim,
                        .style = style};
  };
  const auto write_args = [&](TestTensor& k_tensor, const PagedCache& cache) {
    return tm_kv_write_args{.struct_size = sizeof(tm_kv_write_args),
                            .k = k_tensor.view(),
                            .v = v.view(),
                            .kv = cache.pool(),
                            .plan = plan.plan.handle()};
  };
  const auto read = [&](const PagedCache& cache, TestTensor& out) {
    c.call(TM_OP_attention, c.op().attention,
           tm_attention_args{
               .q = probe.view(), .kv = cache.pool(), .plan = plan.plan.handle(), .scale = 0.125f, .out = out.view()});
  };
  c.issue = [&, state, norms, rope_args, write_args, read](RowRange) {
    c.call(TM_OP_qk_norm_rope_kv_write, c.op().qk_norm_rope_kv_write,
           tm_qk_norm_rope_kv_write_args{.rope = rope_args(q, k),
                                         .q_norm_weight = norms ? q_weight.view() : Tensor{},
                                         .k_norm_weight = norms ? k_weight.view() : Tensor{},
                                         .norm_eps = static_cast<float>(kEps),
                                         .kv_write = write_args(k, state->fused)});
    read(state->fused, seen);
    if (norms) {
      for (const auto& [x, weight] : {std::pair{&q_composed, &q_weight}, {&k_composed, &k_weight}}) {
        c.call(TM_OP_rms_norm, c.op().rms_norm,
               tm_rms_norm_args{
                   .x = x->view(), .weight = weight->view(), .eps = static_cast<float>(kEps), .out = x->view()});
      }
    }
    c.call(TM_OP_rope, c.op().rope, rope_args(q_composed, k_composed));
    c.call(TM_OP_kv_write, c.op().kv_write, write_args(k_composed, state->composed));
    read(state->composed, seen_composed);
  };
  c.reference = [&, norms, style, spec, order] {
    const auto rotated = [&](const TestTensor& x, const TestTensor& weight, int64_t heads) {
      reference::Values values = norms ? reference::rms_norm(x.values(), weight.values(), kEps) : x.values();
      reference::rope({.num_tokens = kTokens,
                       .heads = heads,
                       .dim = kDim,
                       .rotary_dim = kDim,
                       .style = style,
                       .positions = positions.values(),
                       .cos_sin = table.values()},
                      values);
      return values;
    };
    q.expected = rotated(q, q_weight, kHeads);
    const reference::Values keys = rotated(k, k_weight, kKvHeads);
    // The reference cache is in order of position: one block as long as the step.
    seen.expected = paged_attention(
        {.q_heads = kHeads, .kv_heads = kKvHeads, .dim_k = kDim, .dim_v = kDim, .scale = 0.125},
        {.q_lens = {kTokens}, .context_lens = {kTokens}, .table = {{0}}}, kTokens, keys, v.values(), probe.values());
  };
  const Arithmetic arithmetic = state->fused.arithmetic();
  c.verify = [&, arithmetic, dtype] {
    const std::string wrong = verify_pairs({{q, q_composed}}, norm_tolerance(dtype));
    return wrong.empty() ? verify_pairs({{seen, seen_composed}}, tolerance(arithmetic, dtype)) : wrong;
  };
}

}  // namespace

void add_fused_cases(Suite& suite, const Session& session) {
  const std::vector<DType> kv_dtypes = session.kv_dtypes();
  for (const DType dtype : session.activation_dtypes()) {
    const std::string name = dtype_name(dtype);
    suite.add("add_rms_norm", name, "no_rows", [=](Case& c) { build_add_rms_norm(c, dtype, 0, 64, 0); });
    suite.add("add_rms_norm", name, "rows5x100", [=](Case& c) { build_add_rms_norm(c, dtype, 5, 100, 0); });
    suite.add("add_rms_norm", name, "rows3x576_gap64", [=](Case& c) { build_add_rms_norm(c, dtype, 3, 576, 64); });
    const auto add_gated = [&](const std::string& what, tm_weight_format gate, tm_weight_format up, int64_t rows,
                               bool bias) {
      suite.add("linear_gated_activation", name, what,
                [=](Case& c) { build_linear_gated(c, dtype, gate, up, rows, bias); });
    };
    add_gated("no_rows", TM_WEIGHT_F32, TM_WEIGHT_F32, 0, false);
    add_gated("f32", TM_WEIGHT_F32, TM_WEIGHT_F32, 5, false);
    add_gated("f32_bias", TM_WEIGHT_F32, TM_WEIGHT_F32, 3, true);
    add_gated("q4_1", TM_WEIGHT_GGUF_Q4_1, TM_WEIGHT_GGUF_Q4_1, 1, false);
    add_gated("q4_k_q6_k", TM_WEIGHT_GGUF_Q4_K, TM_WEIGHT_GGUF_Q6_K, 18, false);
    for (const DType kv_dtype : kv_dtypes) {
      const std::string variant = name + "_kv_" + dtype_name(kv_dtype);
      const auto add_qk = [&](const std::string& what, bool norms, tm_rope_style style) {
        suite.add("qk_norm_rope_kv_write", variant, what,
                  [=, &session](Case& c) { build_qk_norm_rope_kv_write(c, session, dtype, kv_dtype, norms, style); });
      };
      add_qk("norms", true, TM_ROPE_NEOX);
      add_qk("plain", false, TM_ROPE_NEOX);
      add_qk("interleaved", true, TM_ROPE_INTERLEAVED);
    }
  }
}

}  // namespace turbomind::conformance
