// SPDX-License-Identifier: Apache-2.0
//
// Mixture of experts: routing, products by groups of rows, the sum of the chosen experts.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "abi/ops.h"
#include "ops/matrix.h"

namespace fakecann {
namespace {

// The k largest of one row, ties to the lower index; NaN counts as the smallest.
std::vector<int64_t> largest(const float* row, int64_t count, int64_t k) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return std::isnan(row[b]) ? !std::isnan(row[a]) : row[a] > row[b]; });
  order.resize(static_cast<size_t>(k));
  return order;
}

std::vector<float> softmax_of(const float* row, int64_t count) {
  double top = -INFINITY, total = 0;
  for (int64_t i = 0; i < count; ++i) top = std::max(top, static_cast<double>(row[i]));
  for (int64_t i = 0; i < count; ++i) total += std::exp(row[i] - top);
  std::vector<float> out(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(std::exp(row[i] - top) / total);
  return out;
}

void run_gating(const Bound& bound, int x, int y, int chosen, int scores, int64_t k, bool renormalises) {
  const int64_t experts = bound.view(x).dim(-1), rows = bound.view(x).count() / experts;
  const std::vector<float> logits = bound.floats(x);
  std::vector<float> weights, all;
  std::vector<int64_t> indices;
  for (int64_t r = 0; r < rows; ++r) {
    const std::vector<float> probabilities = softmax_of(logits.data() + r * experts, experts);
    const std::vector<int64_t> best = largest(logits.data() + r * experts, experts, k);
    double total = 0;
    for (const int64_t expert : best) total += probabilities[expert];
    for (const int64_t expert : best) {
      weights.push_back(static_cast<float>(renormalises ? probabilities[expert] / total : probabilities[expert]));
      indices.push_back(expert);
    }
    all.insert(all.end(), probabilities.begin(), probabilities.end());
  }
  bound.put(y, weights);
  bound.put(chosen, indices);
  if (scores >= 0) bound.put(scores, all);
}

struct Routing {
  int x, experts, expanded, row, tokens, before;
  int64_t num_experts;
  bool is_cumulative;
};

void check_routing(const Call& call, const Routing& setup) {
  const Dims& x = call.view(setup.x).dims;
  const int64_t pairs = call.view(setup.experts).count();
  const auto require = [&](bool holds, const char* rule) { call.require(holds, rule, kInnerNull); };
  require(call.view(setup.experts).dim(0) == x[0], "expertIdx has a row for each of x");
  require(call.view(setup.expanded).dims == Dims{pairs, x[1]}, "expandedX has a row for each of expertIdx");
  require(call.view(setup.row).dims == Dims{pairs}, "expandedRowIdx has an entry for each of expertIdx");
  for (const int counts : {setup.tokens, setup.before}) {
    require(call.view(counts).dims == Dims{setup.num_experts}, "a count for each of expertNum");
  }
}

void run_routing(const Bound& bound, const Routing& call) {
  const int64_t hidden = bound.view(call.x).dim(1);
  const std::vector<float> x = bound.floats(call.x);
  const std::vector<int64_t> experts = bound.integers(call.experts);
  const int64_t pairs = static_cast<int64_t>(experts.size());
  const int64_t k = bound.view(call.experts).rank() == 2 ? bound.view(call.experts).dim(1) : 1;
  const DataRule known = bound.rule("expertIdx lies within expertNum");
  std::vector<int64_t> tokens(static_cast<size_t>(call.num_experts), 0);
  for (const int64_t expert : experts) {
    known.require(expert >= 0 && expert < call.num_experts,
                  "expert " + std::to_string(expert) + " of " + std::to_string(call.num_experts));
    ++tokens[expert];
  }
  std::vector<int64_t> order(experts.size()), rows(experts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return experts[a] < experts[b]; });
  std::vector<float> expanded(static_cast<size_t>(pairs * hidden));
  for (int64_t row = 0; row < pairs; ++row) {
    rows[order[row]] = row;
    const float* from = x.data() + order[row] / k * hidden;
    std::copy(from, from + hidden, expanded.begin() + row * hidden);
  }
  if (call.is_cumulative) std::partial_sum(tokens.begin(), tokens.end(), tokens.begin());
  bound.put(call.expanded, expanded);
  bound.put(call.row, rows);
  bound.put(call.tokens, tokens);
}

struct Finalize {
  int x, row, x1, x2, bias, scales, experts, out;
  bool by_column;
};

void check_finalize(const Call& call, const Finalize& setup) {
  const Dims& out = call.view(setup.out).dims;
  const int64_t pairs = call.view(setup.row).count(), k = pairs / std::max<int64_t>(out[0], 1);
  const auto require = [&](bool holds, const char* rule) { call.require(holds, rule, kInnerNull); };
  require(out[0] > 0 && k * out[0] == pairs && k > 0, "expandedRowIdx has k rows for each token");
  require(call.view(setup.x).dims == Dims{pairs, out[1]}, "expandedX has a row for each of expandedRowIdx");
  require(setup.scales >= 0 || k == 1, "k is 1 without scales");
  for (const auto& [index, rule] :
       {std::pair{setup.scales, "scales is [tokens, k]"}, std::pair{setup.experts, "expertIdx is [tokens, k]"}}) {
    if (index >= 0) require(call.view(index).dims == Dims{out[0], k}, rule);
  }
  for (const auto& [index, rule] :
       {std::pair{setup.x1, "x1 has the shape of out"}, std::pair{setup.x2, "x2 has the shape of out"}}) {
    if (index >= 0) require(call.view(index).dims == out, rule);
  }
  if (setup.bias >= 0) {
    const View& bias = call.view(setup.bias);
    require(bias.rank() == 2 && bias.dim(1) == out[1], "bias is [experts, hidden]");
  }
}

void run_finalize(const Bound& bound, const Finalize& call) {
  const int64_t tokens = bound.view(call.out).dim(0), hidden = bound.view(call.out).dim(1);
  const std::vector<float> x = bound.floats(call.x);
  const std::vector<int64_t> rows = bound.integers(call.row);
  const int64_t k = static_cast<int64_t>(rows.size()) / tokens, limit = static_cast<int64_t>(x.size()) / hidden;
  const std::vector<float> scales = call.scales < 0 ? std::vector<float>(rows.size(), 1.0f) : bound.floats(call.scales);
  const std::vector<float> bias = call.bias < 0 ? std::vector<float>() : bound.floats(call.bias);
  const std::vector<int64_t> experts = call.bias < 0 ? std::vector<int64_t>() : bound.integers(call.experts);
  const int64_t num_experts = call.bias < 0 ? 0 : bound.view(call.bias).dim(0);
  if (call.bias >= 0) {
    const DataRule known = bound.rule("expertIdx lies within the rows of bias");
    for (const int64_t expert : experts)
      known.require(expert >= 0 && expert < num_experts,
                    "expert " + std::to_string(expert) + " of " + std::to_string(num_experts));
  }
  const DataRule within = bound.rule("expandedRowIdx lies within the rows of expandedX");
  std::vector<float> out(static_cast<size_t>(tokens * hidden), 0.0f);
  for (const int added : {call.x1, call.x2}) {
    if (added < 0) continue;
    const std::vector<float> values = bound.floats(added);
    for (size_t i = 0; i < out.size(); ++i) out[i] += values[i];
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < k; ++j) {
      const int64_t row = rows[call.by_column ? j * tokens + t : t * k + j];
      within.require(row >= 0 && row < limit, "row " + std::to_string(row) + " of " + std::to_string(limit));
      for (int64_t h = 0; h < hidden; ++h) {
        const float shift = bias.empty() ? 0.0f : bias[experts[t * k + j] * hidden + h];
        out[t * hidden + h] += scales[t * k + j] * (x[row * hidden + h] + shift);
      }
    }
  }
  bound.put(call.out, out);
}

// Past-the-last row of each group.
std::vector<int64_t> ends_of(const Bound& bound, int groups, bool are_counts, int64_t rows) {
  std::vector<int64_t> ends = bound.integers(groups);
  if (are_counts) std::partial_sum(ends.begin(), ends.end(), ends.begin());
  const DataRule rising = bound.rule("groupList rises to at most the number of rows");
  int64_t before = 0;
  for (const int64_t end : ends) {
    rising.require(end >= before && end <= rows, std::to_string(end) + " after " + std::to_string(before));
    before = end;
  }
  return ends;
}

void run_grouped(const Bound& bound, int x, const std::vector<int>& weights, int groups, int out, bool are_counts) {
  const int64_t k = bound.view(x).dim(1), n = bound.view(out).dim(1), rows = bound.view(x).dim(0);
  const std::vector<int64_t> ends = ends_of(bound, groups, are_counts, rows);
  const std::vector<float> values = bound.floats(x);
  std::vector<float> result(static_cast<size_t>(rows * n), 0.0f);
  int64_t first = 0;
  for (size_t group = 0; group < ends.size(); ++group) {
    if (ends[group] > first) {
      const std::vector<float> part(values.begin() + first * k, values.begin() + ends[group] * k);
      const bool is_stacked = weights.size() == 1;
      const std::vector<float> product = multiply(bound, part, ends[group] - first, weights[is_stacked ? 0 : group],
                                                  is_stacked ? static_cast<int64_t>(group) : 0);
      std::copy(product.begin(), product.end(), result.begin() + first * n);
    }
    first = ends[group];
  }
  bound.put(out, result);
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

FAKECANN_OP(MoeGatingTopKSoftmaxV2, FakeIn x, FakeIn finished, int64_t k, int64_t renorm, bool softmaxResultFlag,
            FakeIn y, FakeIn expertIdx, FakeIn softmaxOut) {
  return plan("MoeGatingTopKSoftmaxV2", workspace_size, executor, [&](Call& call) {
    const int a = call.in("x", x);
    call.in("finished", finished);
    const int o = call.out("y", y), e = call.out("expertIdx", expertIdx);
    const int s = call.out("softmaxOut", softmaxOut);
    call.attribute("k", k);
    call.attribute("renorm", renorm);
    call.check();
    call.require(k <= call.view(a).dim(-1), "k is at most the number of experts", kTilingError);
    Dims chosen = call.view(a).dims;
    chosen.back() = k;
    call.require(call.view(o).dims == chosen && call.view(e).dims == chosen, "y and expertIdx are [..., k]",
                 kTilingError);
    // Renormalised weights come without it, whatever the flag says.
    const int scores = softmaxResultFlag && renorm == 0 ? s : -1;
    if (scores >= 0)
      call.require(call.view(s).dims == call.view(a).dims, "softmaxOut has the shape of x", kTilingError);
    call.run([=](const Bound& bound) { run_gating(bound, a, o, e, scores, k, renorm == 1); });
  });
}

FAKECANN_OP(MoeInitRoutingV2, FakeIn x, FakeIn expertIdx, int64_t activeNum, int64_t expertCapacity, int64_t expertNum,
            int64_t dropPadMode, int64_t expertTokensCountOrCumsumFlag, bool expertTokensBeforeCapacityFlag,
            FakeIn expandedX, FakeIn expandedRowIdx, FakeIn expertTokensCountOrCumsum,
            FakeIn expertTokensBeforeCapacity) {
  return plan("MoeInitRoutingV2", workspace_size, executor, [&](Call& call) {
    const Routing setup{call.in("x", x),
                        call.in("expertIdx", expertIdx),
                        call.out("expandedX", expandedX),
                        call.out("expandedRowIdx", expandedRowIdx),
                        call.out("expertTokensCountOrCumsum", expertTokensCountOrCumsum),
                        call.out("expertTokensBeforeCapacity", expertTokensBeforeCapacity),
                        expertNum,
                        expertTokensCountOrCumsumFlag == 1};
    call.attribute("activeNum", activeNum);
    call.attribute("expertCapacity", expertCapacity);
    call.attribute("expertNum", expertNum);
    call.attribute("dropPadMode", dropPadMode);
    call.attribute("expertTokensCountOrCumsumFlag", expertTokensCountOrCumsumFlag);
    call.attribute("expertTokensBeforeCapacityFlag", static_cast<int64_t>(expertTokensBeforeCapacityFlag));
    call.check();
    check_routing(call, setup);
    call.run([setup](const Bound& bound) { run_routing(bound, setup); });
  });
}

FAKECANN_OP(MoeFinalizeRoutingV2, FakeIn expandedX, FakeIn expandedRowIdx, FakeIn x1, FakeIn x2, FakeIn bias,
            FakeIn scales, FakeIn expertIdx, int64_t dropPadMode, aclTensor* out) {
  return plan("MoeFinalizeRoutingV2", workspace_size, executor, [&](Call& call) {
    Finalize setup{call.in("expandedX", expandedX),
                   call.in("expandedRowIdx", expandedRowIdx),
                   call.in("x1", x1),
                   call.in("x2", x2),
                   call.in("bias", bias),
                   call.in("scales", scales),
                   call.in("expertIdx", expertIdx),
                   call.out("out", out),
                   dropPadMode == 0};
    call.attribute("dropPadMode", dropPadMode);
    call.check();
    if (setup.x2 >= 0) call.require(setup.x1 >= 0, "x2 comes with x1");
    if (setup.bias >= 0) call.require(setup.experts >= 0, "bias comes with expertIdx");
    check_finalize(call, setup);
    call.run([setup](const Bound& bound) { run_finalize(bound, setup); });
  });
}

FAKECANN_OP(GroupedMatmulV4, FakeIns x, FakeIns weight, FakeIns bias, FakeIns scale, FakeIns offset,
            FakeIns antiquantScale, FakeIns antiquantOffset, FakeIns perTokenScale, FakeIn groupList,
            FakeIns activationInput, FakeIns activationQuantScale, FakeIns activationQuantOffset, int64_t splitItem,
            int64_t groupType, int64_t groupListType, int64_t actType, aclTensorList* out,
            aclTensorList* activationFeatureOut, aclTensorList* dynQuantScaleOut) {
  return plan("GroupedMatmulV4", workspace_size, executor, [&](Call& call) {
    const std::vector<int> a = call.in("x", x), w = call.in("weight", weight);
    const std::pair<const char*, FakeIns> others[] = {{"bias", bias},
                                                      {"scale", scale},
                                                      {"offset", offset},
                                                      {"antiquantScale", antiquantScale},
                                                      {"antiquantOffset", antiquantOffset},
                                                      {"perTokenScale", perTokenScale}};
    for (const auto& [name, list] : others) call.in(name, list);
    const int g = call.in("groupList", groupList);
    call.in("activationInput", activationInput);
    call.in("activationQuantScale", activationQuantScale);
    call.in("activationQuantOffset", activationQuantOffset);
    call.attribute("splitItem", splitItem);
    call.attribute("groupType", groupType);
    call.attribute("groupListType", groupListType);
    call.attribute("actType", actType);
    const std::vector<int> o = call.out("out", out);
    call.out("activationFeatureOut", activationFeatureOut);
    call.out("dynQuantScaleOut", dynQuantScaleOut);
    call.check();
    call.require(a.size() == 1 && o.size() == 1 && !w.empty(),
                 "x and out are lists of one tensor, weight of one or more");
    const int64_t experts = w.size() == 1 ? call.view(w[0]).dim(0) : static_cast<int64_t>(w.size());
    call.require(w.size() > 1 || call.view(w[0]).rank() == 3, "one weight is [experts, k, n]");
    call.require(call.view(g).count() == experts, "groupList has one entry for each expert");
    call.require(call.view(w[0]).dim(-2) == call.view(a[0]).dim(1), "the columns of x meet the rows of weight");
    call.require(call.view(o[0]).dims == Dims{call.view(a[0]).dim(0), call.view(w[0]).dim(-1)},
                 "out is [rows of x, n]");
    call.run([=](const Bound& bound) { run_grouped(bound, a[0], w, g, o[0], groupListType == 1); });
  });
}
