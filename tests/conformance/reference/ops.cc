// SPDX-License-Identifier: Apache-2.0
#include "reference/ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace turbomind::reference {
namespace {

constexpr double kPi = 3.14159265358979323846;

int rope_axis(const Rope& problem, int64_t pair) {
  const int32_t* section = problem.mrope_section;
  if (problem.mrope_interleaved) {
    const int axis = static_cast<int>(pair % 3);
    return pair < 3 * int64_t{section[axis]} ? axis : 0;
  }
  if (pair < section[0]) return 0;
  return pair < section[0] + section[1] ? 1 : 2;
}

}  // namespace

Values rms_norm(const Values& x, const Values& weight, double eps) {
  const size_t width = weight.size();
  Values out(x.size());
  for (size_t row = 0; row + width <= x.size(); row += width) {
    double sum = 0;
    for (size_t i = 0; i < width; ++i) sum += x[row + i] * x[row + i];
    const double factor = 1 / std::sqrt(sum / static_cast<double>(width) + eps);
    for (size_t i = 0; i < width; ++i) out[row + i] = x[row + i] * factor * weight[i];
  }
  return out;
}

Values layer_norm(const Values& x, const Values& weight, const Values& bias, double eps) {
  const size_t width = weight.size();
  Values out(x.size());
  for (size_t row = 0; row + width <= x.size(); row += width) {
    double mean = 0;
    for (size_t i = 0; i < width; ++i) mean += x[row + i] / static_cast<double>(width);
    double variance = 0;
    for (size_t i = 0; i < width; ++i)
      variance += (x[row + i] - mean) * (x[row + i] - mean) / static_cast<double>(width);
    for (size_t i = 0; i < width; ++i) {
      out[row + i] = (x[row + i] - mean) / std::sqrt(variance + eps) * weight[i] + (bias.empty() ? 0 : bias[i]);
    }
  }
  return out;
}

double activate(tm_activation_kind kind, double x) {
  switch (kind) {
    case TM_ACTIVATION_SILU:
      return x / (1 + std::exp(-x));
    case TM_ACTIVATION_GELU_TANH:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / kPi) * (x + 0.044715 * x * x * x)));
    case TM_ACTIVATION_GELU_ERF:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case TM_ACTIVATION_QUICK_GELU:
      return x / (1 + std::exp(-1.702 * x));
    case TM_ACTIVATION_RELU:
      return std::isnan(x) ? x : std::max(x, 0.0);
    default:
      return x;
  }
}

Values linear(const Values& x, const Values& weight, const Values& bias, int64_t cols, tm_activation_kind kind) {
  const int64_t rows = static_cast<int64_t>(x.size()) / cols;
  const int64_t n = static_cast<int64_t>(weight.size()) / cols;
  Values out(static_cast<size_t>(rows * n));
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t i = 0; i < n; ++i) {
      double sum = bias.empty() ? 0 : bias[static_cast<size_t>(i)];
      for (int64_t k = 0; k < cols; ++k)
        sum += x[static_cast<size_t>(t * cols + k)] * weight[static_cast<size_t>(i * cols + k)];
      out[static_cast<size_t>(t * n + i)] = activate(kind, sum);
    }
  }
  return out;
}

void rope(const Rope& p, Values& x) {
  const int64_t pairs = p.rotary_dim / 2;
  const bool mrope = p.mrope_section[0] + p.mrope_section[1] + p.mrope_section[2] > 0;
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    for (int64_t h = 0; h < p.heads; ++h) {
      double* head = x.data() + (t * p.heads + h) * p.dim;
      for (int64_t i = 0; i < pairs; ++i) {
        const int64_t axis = mrope ? rope_axis(p, i) : 0;
        const auto position = static_cast<int64_t>(p.positions[static_cast<size_t>(axis * p.num_tokens + t)]);
        const double c = p.cos_sin[static_cast<size_t>(position * p.rotary_dim + i)];
        const double s = p.cos_sin[static_cast<size_t>(position * p.rotary_dim + pairs + i)];
        double& a = head[p.style == TM_ROPE_NEOX ? i : 2 * i];
        double& b = head[p.style == TM_ROPE_NEOX ? i + pairs : 2 * i + 1];
        const double rotated = a * c - b * s;
        b = a * s + b * c;
        a = rotated;
      }
    }
  }
}

void attend(const Attention& p, const double* q, const AttendedRow& row, double* out) {
  const size_t length = row.keys.size();
  for (int64_t h = 0; h < p.q_heads; ++h) {
    const int64_t kv_head = h * p.kv_heads / p.q_heads;
    double largest = p.sinks.empty() ? -std::numeric_limits<double>::infinity() : p.sinks[static_cast<size_t>(h)];
    Values scores(length);
    for (size_t j = 0; j < length; ++j) {
      double dot = 0;
      for (int64_t d = 0; d < p.dim_k; ++d) dot += q[h * p.dim_k + d] * row.keys[j][kv_head * p.dim_k + d];
      scores[j] = dot * p.scale;
      if (p.softcap > 0) scores[j] = p.softcap * std::tanh(scores[j] / p.softcap);
      largest = std::max(largest, scores[j]);
    }
    double total = p.sinks.empty() ? 0 : std::exp(p.sinks[static_cast<size_t>(h)] - largest);
    for (double& score : scores) total += score = std::exp(score - largest);
    for (int64_t d = 0; d < p.dim_v; ++d) {
      double sum = 0;
      for (size_t j = 0; j < length; ++j) sum += scores[j] * row.values[j][kv_head * p.dim_v + d];
      out[h * p.dim_v + d] = sum / total;
    }
  }
}

Routing route(const Values& logits, const Values& bias, int64_t num_experts, int64_t top_k, tm_route_score score,
              bool renormalize, double scaling) {
  Routing result;
  for (size_t row = 0; row < logits.size(); row += static_cast<size_t>(num_experts)) {
    Values scores(logits.begin() + static_cast<std::ptrdiff_t>(row),
                  logits.begin() + static_cast<std::ptrdiff_t>(row) + num_experts);
    const double largest = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& s : scores) {
      s = score == TM_ROUTE_SOFTMAX ? std::exp(s - largest) : 1 / (1 + std::exp(-s));
      total += s;
    }
    if (score == TM_ROUTE_SOFTMAX) {
      for (double& s : scores) s /= total;
    }
    Ints order(static_cast<size_t>(num_experts));
    std::iota(order.begin(), order.end(), 0);
    const auto key = [&](int64_t e) {
      return scores[static_cast<size_t>(e)] + (bias.empty() ? 0 : bias[static_cast<size_t>(e)]);
    };
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) > key(b); });
    double chosen = 0;
    for (int64_t j = 0; j < top_k; ++j) chosen += scores[static_cast<size_t>(order[static_cast<size_t>(j)])];
    for (int64_t j = 0; j < top_k; ++j) {
      const int64_t expert = order[static_cast<size_t>(j)];
      result.expert_ids.push_back(expert);
      result.weights.push_back(scores[static_cast<size_t>(expert)] / (renormalize ? chosen : 1) * scaling);
    }
  }
  return result;
}

// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
double uniform(uint64_t seed, uint64_t position) {
  uint32_t counter[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    const uint32_t next0 = static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0];
    const uint32_t next2 = static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1];
    counter[1] = static_cast<uint32_t>(product1);
    counter[3] = static_cast<uint32_t>(product0);
    counter[0] = next0;
    counter[2] = next2;
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter[0] / 4294967296.0;
}

int64_t sample(const double* logits, int64_t vocabulary, const SamplingRow& row) {
  Ints order(static_cast<size_t>(vocabulary));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return logits[a] > logits[b]; });
  if (row.temperature == 0 || std::isinf(logits[order[0]])) return order[0];
  if (row.top_k > 0) order.resize(static_cast<size_t>(std::min(row.top_k, vocabulary)));
  Values mass(order.size());
  for (size_t j = 0; j < order.size(); ++j) mass[j] = std::exp((logits[order[j]] - logits[order[0]]) / row.temperature);
  const double all = std::accumulate(mass.begin(), mass.end(), 0.0);
  size_t kept = mass.size();
  if (row.top_p < 1) {
    double prefix = 0;
    for (kept = 0; kept < mass.size() && (kept == 0 || prefix < row.top_p * all); ++kept) prefix += mass[kept];
  }
  while (kept > 1 && mass[kept - 1] < row.min_p * mass[0]) --kept;
  std::map<int64_t, double> by_id;
  double left = 0;
  for (size_t j = 0; j < kept; ++j) left += by_id[order[j]] = mass[j];
  double running = 0;
  for (const auto& [id, m] : by_id) {
    running += m;
    if (running > row.u * left) return id;
  }
  return by_id.rbegin()->first;
}

std::set<int64_t> sample_candidates(const double* logits, int64_t vocabulary, const SamplingRow& row, double slack) {
  std::set<int64_t> tokens;
  for (const double du : {-slack, 0.0, slack}) {
    for (const double dp : {-slack, 0.0, slack}) {
      for (const double dm : {-slack, 0.0, slack}) {
        SamplingRow changed = row;
        changed.u = std::clamp(row.u + du, 0.0, 1.0);
        if (row.top_p < 1) changed.top_p = row.top_p + dp;
        if (row.min_p > 0) changed.min_p = row.min_p + dm;
        tokens.insert(sample(logits, vocabulary, changed));
      }
    }
  }
  return tokens;
}

Values log_softmax(const double* logits, int64_t vocabulary) {
  const double largest = *std::max_element(logits, logits + vocabulary);
  double total = 0;
  for (int64_t i = 0; i < vocabulary; ++i) total += std::exp(logits[i] - largest);
  Values out(static_cast<size_t>(vocabulary));
  for (int64_t i = 0; i < vocabulary; ++i) out[static_cast<size_t>(i)] = logits[i] - largest - std::log(total);
  return out;
}

}  // namespace turbomind::reference
