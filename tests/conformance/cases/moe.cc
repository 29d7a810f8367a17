// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <set>

#include "reference/ops.h"
#include "suite.h"

namespace turbomind::conformance {
namespace {

struct RouteCase {
  int64_t tokens;
  int64_t experts;
  int64_t top_k;
  tm_route_score score = TM_ROUTE_SOFTMAX;
  bool bias = false;
  bool renormalize = true;
  double scaling = 1;
  bool ties = false;
};

void build_route(Case& c, const RouteCase& p) {
  TestTensor& logits = c.input("logits", TM_F32, {p.tokens, p.experts});
  TestTensor& bias = c.input("bias", TM_F32, {p.experts});
  TestTensor& ids = c.output("expert_ids", TM_I32, {p.tokens, p.top_k});
  TestTensor& weights = c.output("weights", TM_F32, {p.tokens, p.top_k});
  c.independent_rows = p.tokens;
  c.fill = [&c, &logits, &bias, p] {
    // Ties: equal logits, but not equal weights after the softmax of the row.
    for (int64_t i = 0; i < logits.size(); ++i) {
      logits.set(i, p.ties ? static_cast<double>(c.random.integer(0, 2)) : 2 * c.random.normal());
    }
    bias.fill_normal(c.random, 0.5);
  };
  c.issue = [&c, &logits, &bias, &ids, &weights, p](RowRange r) {
    c.call(TM_OP_moe_route, c.op().moe_route,
           tm_moe_route_args{.logits = logits.rows(r.begin, r.count),
                             .bias = p.bias ? bias.view() : Tensor{},
                             .top_k = static_cast<int32_t>(p.top_k),
                             .score = p.score,
                             .renormalize = p.renormalize,
                             .scaling = static_cast<float>(p.scaling),
                             .expert_ids = ids.rows(r.begin, r.count),
                             .weights = weights.rows(r.begin, r.count)});
  };
  c.reference = [&logits, &bias, &ids, &weights, p] {
    const reference::Routing routing = reference::route(logits.values(), p.bias ? bias.values() : reference::Values{},
                                                        p.experts, p.top_k, p.score, p.renormalize, p.scaling);
    for (const int64_t id : routing.expert_ids) ids.expected.push_back(static_cast<double>(id));
    weights.expected = routing.weights;
  };
}

// NaN logits: the ids must still be distinct experts, or the permutation behind them writes out of bounds.
void build_route_nan(Case& c) {
  build_route(c, {.tokens = 3, .experts = 8, .top_k = 3});
  TestTensor& logits = c.tensors()[0];
  TestTensor& ids = c.tensors()[2];
  c.fill = [&c, &logits] {
    logits.fill_normal(c.random);
    for (int64_t e = 0; e < 8; ++e) logits.set(8 + e, std::numeric_limits<double>::quiet_NaN());
    logits.set(18, std::numeric_limits<double>::quiet_NaN());
  };
  c.reference = nullptr;
  c.verify = [&ids]() -> std::string {
    for (int64_t t = 0; t < ids.rows(); ++t) {
      std::set<double> distinct;
      for (int64_t j = 0; j < 3; ++j) distinct.insert(ids.result(t * 3 + j));
      if (distinct.size() != 3 || *distinct.begin() < 0 || *distinct.rbegin() > 7) {
        return "row " + std::to_string(t) + ": expert ids are not distinct or out of range";
      }
    }
    return {};
  };
}

void draw_experts(Random& random, TestTensor& ids, int64_t experts) {
  for (int64_t t = 0; t < ids.rows(); ++t) {
    const std::vector<int64_t> order = random.permutation(experts);
    for (int64_t j = 0; j < ids.row_size(); ++j) {
      ids.set(t * ids.row_size() + j, static_cast<double>(order[static_cast<size_t>(j)]));
    }
  }
}

void build_permute(Case& c, DType dtype, int64_t tokens, int64_t experts, int64_t top_k, int64_t cols) {
  TestTensor& x = c.input("x", dtype, {tokens, cols});
  TestTensor& ids = c.input("expert_ids", TM_I32, {tokens, top_k});
  TestTensor& out = c.output("out", dtype, {tokens * top_k, cols});
  TestTensor& offsets = c.output("expert_offsets", TM_I32, {experts + 1});
  TestTensor& position = c.output("position", TM_I32, {tokens, top_k});
  c.arithmetic = Arithmetic::kExact;
  c.fill = [&c, &x, &ids, experts] {
    x.fill_normal(c.random);
    draw_experts(c.random, ids, experts);
  };
  c.issue = [&c, &x, &ids, &out, &offsets, &position, experts](RowRange) {
    c.call(TM_OP_moe_permute, c.op().moe_permute,
           tm_moe_permute_args{.x = x.view(),
                               .expert_ids = ids.view(),
                               .num_experts = static_cast<int32_t>(experts),
                               .out = out.view(),
                               .expert_offsets = offsets.view(),
                               .position = position.view()});
  };
  c.reference = [&x, &ids, &out, &offsets, &position, experts, top_k, cols] {
    position.expected.resize(static_cast<size_t>(ids.size()));
    int64_t next = 0;
    for (int64_t e = 0; e < experts; ++e) {
      offsets.expected.push_back(static_cast<double>(next));
      for (int64_t i = 0; i < ids.size(); ++i) {
        if (static_cast<int64_t>(ids.get(i)) != e) continue;
        position.expected[static_cast<size_t>(i)] = static_cast<double>(next++);
        for (int64_t j = 0; j < cols; ++j) out.expected.push_back(x.get(i / top_k * cols + j));
      }
    }
    offsets.expected.push_back(static_cast<double>(next));
  };
}

void build_combine(Case& c, DType dtype, int64_t tokens, int64_t top_k, int64_t cols) {
  TestTensor& x = c.input("x", dtype, {tokens * top_k, cols});
  TestTensor& position = c.input("position", TM_I32, {tokens, top_k});
  TestTensor& weights = c.input("weights", TM_F32, {tokens, top_k});
  TestTensor& out = c.output("out", dtype, {tokens, cols});
  c.fill = [&c, &x, &position, &weights] {
    x.fill_normal(c.random);
    weights.fill_uniform(c.random, 0, 1);
    const std::vector<int64_t> order = c.random.permutation(position.size());
    for (int64_t i = 0; i < position.size(); ++i) position.set(i, static_cast<double>(order[static_cast<size_t>(i)]));
  };
  c.issue = [&c, &x, &position, &weights, &out](RowRange) {
    c.call(
        TM_OP_moe_combine, c.op().moe_combine,
        tm_moe_combine_args{.x = x.view(), .position = position.view(), .weights = weights.view(), .out = out.view()});
  };
  c.reference = [&x, &position, &weights, &out, top_k, cols] {
    for (int64_t t = 0; t < out.rows(); ++t) {
      for (int64_t i = 0; i < cols; ++i) {
        double sum = 0;
        for (int64_t j = t * top_k; j < (t + 1) * top_k; ++j) {
          sum += weights.get(j) * x.get(static_cast<int64_t>(position.get(j)) * cols + i);
        }
        out.expected.push_back(sum);
      }
    }
  };
}

}  // namespace

void add_moe_cases(Suite& suite, const Session& session) {
  const auto add_route = [&](const std::string& what, const RouteCase& p) {
    suite.add("moe_route", "f32", what, [=](Case& c) { build_route(c, p); });
  };
  add_route("no_rows", {0, 8, 2});
  add_route("one_expert", {3, 1, 1});
  add_route("softmax", {7, 60, 4});
  add_route("softmax_raw", {7, 16, 2, TM_ROUTE_SOFTMAX, false, false});
  add_route("sigmoid_bias_scaled", {9, 32, 6, TM_ROUTE_SIGMOID, true, true, 2.5});
  add_route("all_experts", {2, 8, 8});
  add_route("many", {5, 256, 8, TM_ROUTE_SIGMOID, true, true, 1});
  add_route("ties_go_to_the_lower_expert", {11, 16, 4, TM_ROUTE_SOFTMAX, false, true, 1, true});
  suite.add("moe_route", "f32", "nan_logits", build_route_nan);
  for (const DType dtype : session.activation_dtypes()) {
    const std::string name = dtype_name(dtype);
    suite.add("moe_permute", name, "no_rows", [=](Case& c) { build_permute(c, dtype, 0, 4, 2, 8); });
    suite.add("moe_permute", name, "one_row", [=](Case& c) { build_permute(c, dtype, 1, 4, 2, 33); });
    suite.add("moe_permute", name, "ragged", [=](Case& c) { build_permute(c, dtype, 23, 16, 3, 64); });
    suite.add("moe_permute", name, "idle_experts", [=](Case& c) { build_permute(c, dtype, 3, 64, 2, 16); });
    suite.add("moe_combine", name, "no_rows", [=](Case& c) { build_combine(c, dtype, 0, 2, 8); });
    suite.add("moe_combine", name, "one_row", [=](Case& c) { build_combine(c, dtype, 1, 1, 7); });
    suite.add("moe_combine", name, "odd", [=](Case& c) { build_combine(c, dtype, 13, 4, 100); });
  }
}

}  // namespace turbomind::conformance
