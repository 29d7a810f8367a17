// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ops.h"
#include "ops/row_loop.h"

namespace turbomind::cpu {
namespace {

// Scores of one row of router logits; NaN counts as the smallest score.
void router_scores(const float* logits, int64_t experts, tm_route_score kind, float* scores) {
  float max = logits[0];
  for (int64_t e = 1; e < experts; ++e) max = std::max(max, logits[e]);
  float total = 0.0f;
  for (int64_t e = 0; e < experts; ++e) {
    scores[e] = kind == TM_ROUTE_SIGMOID ? 1.0f / (1.0f + std::exp(-logits[e])) : std::exp(logits[e] - max);
    total += scores[e];
  }
  for (int64_t e = 0; kind == TM_ROUTE_SOFTMAX && e < experts; ++e) scores[e] /= total;
}

float order_key(float score, const float* bias, int64_t expert) {
  const float key = bias ? score + bias[expert] : score;
  return std::isnan(key) ? -std::numeric_limits<float>::infinity() : key;
}

}  // namespace

void CpuOps::moe_route(Stream& stream, const tm_moe_route_args& args, const tm_workspace&) {
  const Matrix<float> logits = matrix_arg<float>(args.logits, "logits");
  const float* bias = vector_arg<float>(args.bias, "bias");
  const Matrix<int32_t> ids = matrix_arg<int32_t>(args.expert_ids, "expert_ids");
  const Matrix<float> weights = matrix_arg<float>(args.weights, "weights");
  require(args.top_k > 0 && args.top_k <= logits.cols, "top_k", "1 to " + std::to_string(logits.cols));
  for_rows(stream, logits.rows, logits.cols * 16, [&](int64_t row) {
    std::vector<float> scores(static_cast<size_t>(logits.cols));
    router_scores(logits.row(row), logits.cols, args.score, scores.data());
    std::vector<int32_t> order(static_cast<size_t>(logits.cols));
    for (int64_t e = 0; e < logits.cols; ++e) order[e] = static_cast<int32_t>(e);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return order_key(scores[a], bias, a) > order_key(scores[b], bias, b);
    });
    float total = 0.0f;
    for (int32_t j = 0; j < args.top_k; ++j) total += scores[order[j]];
    const float factor = args.renormalize ? args.scaling / total : args.scaling;
    for (int32_t j = 0; j < args.top_k; ++j) {
      ids.row(row)[j] = order[j];
      weights.row(row)[j] = scores[order[j]] * factor;
    }
  });
}

void CpuOps::moe_permute(Stream&, const tm_moe_permute_args& args, const tm_workspace&) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  const Matrix<int32_t> ids = matrix_arg<int32_t>(args.expert_ids, "expert_ids");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  const Matrix<int32_t> position = matrix_arg<int32_t>(args.position, "position");
  int32_t* offsets = vector_arg<int32_t>(args.expert_offsets, "expert_offsets");
  std::vector<int32_t> next(static_cast<size_t>(args.num_experts) + 1, 0);
  for (int64_t t = 0; t < ids.rows; ++t) {
    for (int64_t j = 0; j < ids.cols; ++j) {
      const int32_t expert = ids.row(t)[j];
      require(expert >= 0 && expert < args.num_experts, "expert_ids",
              "values in [0, " + std::to_string(args.num_experts) + "), found " + std::to_string(expert));
      ++next[expert + 1];
    }
  }
  for (int32_t e = 0; e < args.num_experts; ++e) next[e + 1] += next[e];
  std::copy(next.begin(), next.end(), offsets);
  for (int64_t t = 0; t < ids.rows; ++t) {
    for (int64_t j = 0; j < ids.cols; ++j) {
      const int32_t to = next[ids.row(t)[j]]++;
      position.row(t)[j] = to;
      std::memcpy(out.row(to), x.row(t), static_cast<size_t>(x.cols) * sizeof(float));
    }
  }
}

void CpuOps::moe_combine(Stream& stream, const tm_moe_combine_args& args, const tm_workspace&) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  const Matrix<int32_t> position = matrix_arg<int32_t>(args.position, "position");
  const Matrix<float> weights = matrix_arg<float>(args.weights, "weights");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  for_rows(stream, out.rows, out.cols * position.cols, [&](int64_t t) {
    float* to = out.row(t);
    std::fill_n(to, out.cols, 0.0f);
    for (int64_t j = 0; j < position.cols; ++j) {
      const float* from = x.row(position.row(t)[j]);
      const float weight = weights.row(t)[j];
      for (int64_t i = 0; i < out.cols; ++i) to[i] += weight * from[i];
    }
  });
}

}  // namespace turbomind::cpu
