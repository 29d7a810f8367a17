// SPDX-License-Identifier: Apache-2.0
#include "model/reference_decoder.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace turbomind::test {
namespace {

Row rms_normalize(const Row& x, const Row& weight, double eps) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  const double inverse = 1 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
  Row out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * inverse * weight[i];
  return out;
}

double activate(tm_activation_kind kind, double x) {
  switch (kind) {
    case TM_ACTIVATION_SILU:
      return x / (1 + std::exp(-x));
    case TM_ACTIVATION_GELU_TANH:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    default:
      throw std::logic_error("reference decoder: activation not written down");
  }
}

void add(Row& to, const Row& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

double cap(double score, double softcap) { return softcap > 0 ? softcap * std::tanh(score / softcap) : score; }

}  // namespace

Row ReferenceDecoder::linear(const std::string& name, const Row& x) const {
  const Row& matrix = weight(name);
  const auto bias = weights_.find(name + ".bias");
  Row out(matrix.size() / x.size());
  for (size_t o = 0; o < out.size(); ++o) {
    double sum = bias == weights_.end() ? 0 : bias->second[o];
    for (size_t i = 0; i < x.size(); ++i) sum += matrix[o * x.size() + i] * x[i];
    out[o] = sum;
  }
  return out;
}

Row ReferenceDecoder::norm(const std::string& name, const Row& x) const {
  return rms_normalize(x, weight(name), config_.norm_eps);
}

void ReferenceDecoder::prepare_head(const std::string& norm_name, const AttentionConfig& config, int64_t position,
                                    double* head) const {
  if (config.qk_norm) {
    const Row normed = norm(norm_name, Row(head, head + config.head_dim));
    std::copy(normed.begin(), normed.end(), head);
  }
  const RopeConfig& rope = config_.ropes[static_cast<size_t>(config.rope)];
  const int32_t half = rope.dim / 2;
  for (int32_t i = 0; i < half; ++i) {
    const bool neox = rope.style == TM_ROPE_NEOX;
    double& a = head[neox ? i : 2 * i];
    double& b = head[neox ? i + half : 2 * i + 1];
    const double angle = static_cast<double>(position) * rope.inv_freq[static_cast<size_t>(i)];
    const double c = std::cos(angle) * rope.attention_factor;
    const double s = std::sin(angle) * rope.attention_factor;
    const double rotated = a * c - b * s;
    b = b * c + a * s;
    a = rotated;
  }
}

Rows ReferenceDecoder::attention(const std::string& prefix, const AttentionConfig& config, const Rows& x) const {
  const auto count = static_cast<int64_t>(x.size());
  const int64_t dim = config.head_dim;
  Rows q, k, v;
  for (int64_t t = 0; t < count; ++t) {
    q.push_back(linear(prefix + "q_proj", x[static_cast<size_t>(t)]));
    k.push_back(linear(prefix + "k_proj", x[static_cast<size_t>(t)]));
    v.push_back(linear(prefix + "v_proj", x[static_cast<size_t>(t)]));
    for (int32_t h = 0; h < config.num_heads; ++h) prepare_head(prefix + "q_norm", config, t, &q.back()[h * dim]);
    for (int32_t h = 0; h < config.num_kv_heads; ++h) prepare_head(prefix + "k_norm", config, t, &k.back()[h * dim]);
  }
  Rows out;
  for (int64_t t = 0; t < count; ++t) {
    const int64_t first = config.window > 0 ? std::max<int64_t>(0, t - config.window + 1) : 0;
    Row row(static_cast<size_t>(config.num_heads * dim));
    for (int64_t h = 0; h < config.num_heads; ++h) {
      const int64_t kv = h * config.num_kv_heads / config.num_heads * dim;
      Row scores;
      for (int64_t s = first; s <= t; ++s) {
        double dot = 0;
        for (int64_t i = 0; i < dim; ++i) dot += q[t][h * dim + i] * k[s][kv + i];
        scores.push_back(cap(dot * config.scale, config.softcap));
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double total = 0;
      for (double& score : scores) total += score = std::exp(score - largest);
      for (int64_t s = first; s <= t; ++s) {
        for (int64_t i = 0; i < dim; ++i) row[h * dim + i] += scores[s - first] / total * v[s][kv + i];
      }
    }
    out.push_back(linear(prefix + "o_proj", row));
  }
  return out;
}

Row ReferenceDecoder::ffn(const std::string& prefix, const FfnConfig& config, const Row& x) const {
  Row gate = linear(prefix + "gate_proj", x);
  const Row up = linear(prefix + "up_proj", x);
  for (size_t i = 0; i < gate.size(); ++i) gate[i] = activate(config.activation, gate[i]) * up[i];
  return linear(prefix + "down_proj", gate);
}

Rows ReferenceDecoder::hidden(const std::vector<int32_t>& tokens, const std::map<int64_t, Row>& embeddings) const {
  const Row& table = weight("embed_tokens");
  Rows x;
  for (const int32_t token : tokens) {
    const auto begin = table.begin() + static_cast<int64_t>(token) * config_.hidden_size;
    Row row(begin, begin + config_.hidden_size);
    for (double& value : row) value *= config_.embed_scale;
    x.push_back(row);
  }
  for (const auto& [position, row] : embeddings) x[static_cast<size_t>(position)] = row;

  for (size_t i = 0; i < config_.layers.size(); ++i) {
    const LayerConfig& layer = config_.layers[i];
    const std::string prefix = "layers." + std::to_string(i) + ".";
    Rows normed;
    for (const Row& row : x) normed.push_back(norm(prefix + "attn_norm", row));
    const Rows attended = attention(prefix, layer.attention, normed);
    for (size_t t = 0; t < x.size(); ++t) {
      add(x[t], layer.post_attention_norm ? norm(prefix + "post_attn_norm", attended[t]) : attended[t]);
      const Row fed = ffn(prefix, layer.ffn, norm(prefix + "ffn_norm", x[t]));
      add(x[t], layer.post_ffn_norm ? norm(prefix + "post_ffn_norm", fed) : fed);
    }
  }
  for (Row& row : x) row = norm("final_norm", row);
  return x;
}

Rows ReferenceDecoder::logits(const Rows& hidden) const {
  Rows out;
  for (const Row& row : hidden) {
    out.push_back(linear(config_.tie_word_embeddings ? "embed_tokens" : "lm_head", row));
    for (double& logit : out.back()) logit = cap(logit, config_.logit_softcap);
  }
  return out;
}

}  // namespace turbomind::test
