// SPDX-License-Identifier: Apache-2.0
//
// Optional help for plug-ins whose device memory the host can read and write: what is the same everywhere, so that a
// backend can begin with its matrices and attention and take the rest from here until it has kernels of its own.
// Everything runs when called, on float32; the ops do what tm_backend_ops.h says of them, as plain loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "tm_backend.hpp"

namespace turbomind::abi::host {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

// First element of row i of a tensor of T.
template <class T = float>
T* row(const tm_tensor& tensor, int64_t i) {
  return static_cast<T*>(tensor.data) + i * tensor.stride[0];
}

// Copies row i of a 2-d tensor of any dtype to row j of another.
inline void copy_row(const tm_tensor& from, int64_t i, const tm_tensor& to, int64_t j) {
  constexpr int64_t kSizes[] = {4, 2, 2, 1, 1, 4, 4, 8, 8, 1, 1};  // bytes, by tm_dtype
  const int64_t size = kSizes[to.dtype];
  std::memcpy(static_cast<char*>(to.data) + j * to.stride[0] * size,
              static_cast<const char*>(from.data) + i * from.stride[0] * size, static_cast<size_t>(to.shape[1] * size));
}

// A stream whose work is done when the call returns, and an event on it.
struct Stream {
  template <class Context>
  explicit Stream(Context&) {}
  void copy_async(void* dst, const void* src, size_t bytes, tm_copy_kind) { std::memmove(dst, src, bytes); }
  void memset_async(void* dst, int value, size_t bytes) { std::memset(dst, value, bytes); }
  void synchronize() {}
};

struct Event {
  template <class Context>
  explicit Event(Context&) {}
  void record(Stream&) {}
  void wait(Stream&) {}
  void synchronize() {}
  bool query() { return true; }
};

// A copy of a step's metadata.
class Step {
 public:
  explicit Step(const tm_plan_limits& limits) : limits_(limits) {}

  // Throws TM_INVALID_ARGUMENT for a step beyond the plan's limits.
  void update(const tm_step_meta& meta) {
    if (meta.num_tokens > limits_.max_tokens || meta.num_seqs > limits_.max_seqs) {
      throw Error(TM_INVALID_ARGUMENT, "plan: a step of " + std::to_string(meta.num_tokens) + " tokens and " +
                                           std::to_string(meta.num_seqs) + " sequences is beyond the plan's limits");
    }
    cu_seqlens_q_.assign(meta.cu_seqlens_q, meta.cu_seqlens_q + meta.num_seqs + 1);
    padded_tokens_ = std::max(meta.padded_tokens, meta.num_tokens);
    if (!meta.block_table) return;
    context_lens_.assign(meta.context_lens, meta.context_lens + meta.num_seqs);
    block_table_.assign(meta.block_table, meta.block_table + meta.num_seqs * meta.block_table_stride);
    table_stride_ = meta.block_table_stride;
  }

  int64_t num_seqs() const { return static_cast<int64_t>(cu_seqlens_q_.size()) - 1; }
  int64_t num_tokens() const { return cu_seqlens_q_.back(); }
  int64_t padded_tokens() const { return padded_tokens_; }
  // First row of a sequence; of num_seqs(): the number of tokens.
  int64_t first_row(int64_t sequence) const { return cu_seqlens_q_[static_cast<size_t>(sequence)]; }

  // fn(row, sequence, position) for each row of a paged step.
  template <class Fn>
  void for_rows(Fn fn) const {
    for (int64_t s = 0; s < num_seqs(); ++s) {
      const int64_t end = first_row(s + 1);
      for (int64_t i = first_row(s); i < end; ++i) fn(i, s, context_lens_[static_cast<size_t>(s)] - end + i);
    }
  }

  // The block that holds a position, and its place among all places of a pool.
  int64_t block(int64_t sequence, int64_t position) const {
    return block_table_[static_cast<size_t>(sequence * table_stride_ + position / limits_.block_size)];
  }
  int64_t place(int64_t sequence, int64_t position) const {
    return block(sequence, position) * limits_.block_size + position % limits_.block_size;
  }

 private:
  tm_plan_limits limits_;
  std::vector<int32_t> cu_seqlens_q_{0};
  std::vector<int32_t> context_lens_;
  std::vector<int32_t> block_table_;
  int64_t table_stride_ = 0;
  int64_t padded_tokens_ = 0;
};

inline float activate(tm_activation_kind kind, float x) {
  constexpr float kSqrt2OverPi = 0.79788456f;
  constexpr float kSqrtHalf = 0.70710678f;
  switch (kind) {
    case TM_ACTIVATION_SILU:
      return x / (1 + std::exp(-x));
    case TM_ACTIVATION_GELU_TANH:
      return 0.5f * x * (1 + std::tanh(kSqrt2OverPi * (x + 0.044715f * x * x * x)));
    case TM_ACTIVATION_GELU_ERF:
      return 0.5f * x * (1 + std::erf(kSqrtHalf * x));
    case TM_ACTIVATION_QUICK_GELU:
      return x / (1 + std::exp(-1.702f * x));
    case TM_ACTIVATION_RELU:
      return x < 0 ? 0 : x;
    default:
      return x;
  }
}

// The number sample() draws with: first word of Philox4x32-10 / 2^32.
inline double uniform(uint64_t seed, uint64_t position) {
  uint32_t counter[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
                              static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    std::copy(next, next + 4, counter);
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter[0] / 4294967296.0;
}

// Ids by falling logit, the lower one first among equals; a NaN comes last.
inline std::vector<int32_t> ranking(const float* logits, int64_t count) {
  const auto key = [&](int32_t id) { return std::isnan(logits[id]) ? -kInfinity : logits[id]; };
  std::vector<int32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return key(a) > key(b); });
  return order;
}

// From float32 or int32 to those and int8; others throw TM_UNSUPPORTED.
inline void cast(const tm_cast_args& args) {
  const tm_dtype from = args.in.dtype;
  const tm_dtype to = args.out.dtype;
  if ((from != TM_F32 && from != TM_I32) || (to != TM_F32 && to != TM_I32 && to != TM_I8)) {
    throw Error(TM_UNSUPPORTED, "cast: expected float32 or int32 to those or int8");
  }
  const auto rounded = [](double x, double low, double high) { return std::nearbyint(std::clamp(x, low, high)); };
  for (int64_t t = 0; t < args.in.shape[0]; ++t) {
    for (int64_t i = 0; i < args.in.shape[1]; ++i) {
      const double x = from == TM_F32 ? row(args.in, t)[i] : row<int32_t>(args.in, t)[i];
      if (to == TM_F32) row(args.out, t)[i] = static_cast<float>(x);
      if (to == TM_I32) row<int32_t>(args.out, t)[i] = static_cast<int32_t>(rounded(x, INT32_MIN, INT32_MAX));
      if (to == TM_I8) row<int8_t>(args.out, t)[i] = static_cast<int8_t>(rounded(x, INT8_MIN, INT8_MAX));
    }
  }
}

inline void gather_rows(const tm_gather_rows_args& args) {
  for (int64_t i = 0; i < args.index.shape[0]; ++i) {
    const int32_t from = *row<int32_t>(args.index, i);
    if (from >= 0) copy_row(args.in, from, args.out, i);
  }
}

inline void scatter_rows(const tm_scatter_rows_args& args) {
  for (int64_t i = 0; i < args.index.shape[0]; ++i) {
    const int32_t to = *row<int32_t>(args.index, i);
    if (to >= 0) copy_row(args.in, i, args.out, to);
  }
}

inline void moe_route(const tm_moe_route_args& args) {
  const int64_t experts = args.logits.shape[1];
  const bool softmax = args.score == TM_ROUTE_SOFTMAX;
  for (int64_t t = 0; t < args.logits.shape[0]; ++t) {
    const float* logits = row(args.logits, t);
    const float largest = *std::max_element(logits, logits + experts);
    std::vector<float> scores(logits, logits + experts);
    for (float& s : scores) s = softmax ? std::exp(s - largest) : 1 / (1 + std::exp(-s));
    const float total = softmax ? std::accumulate(scores.begin(), scores.end(), 0.0f) : 1;
    std::vector<float> keys;
    for (int64_t e = 0; e < experts; ++e) {
      scores[static_cast<size_t>(e)] /= total;
      keys.push_back(scores[static_cast<size_t>(e)] + (args.bias.data ? row(args.bias, 0)[e] : 0));
    }
    const std::vector<int32_t> order = ranking(keys.data(), experts);
    float chosen = 0;
    for (int32_t j = 0; j < args.top_k; ++j) chosen += scores[static_cast<size_t>(order[static_cast<size_t>(j)])];
    for (int32_t j = 0; j < args.top_k; ++j) {
      const int32_t expert = order[static_cast<size_t>(j)];
      row<int32_t>(args.expert_ids, t)[j] = expert;
      row(args.weights, t)[j] = scores[static_cast<size_t>(expert)] / (args.renormalize ? chosen : 1) * args.scaling;
    }
  }
}

inline void moe_permute(const tm_moe_permute_args& args) {
  const int64_t top_k = args.expert_ids.shape[1];
  const int32_t* expert_ids = row<int32_t>(args.expert_ids, 0);
  int32_t next = 0;
  for (int32_t expert = 0; expert <= args.num_experts; ++expert) {
    row<int32_t>(args.expert_offsets, 0)[expert] = next;
    for (int64_t i = 0; i < args.x.shape[0] * top_k; ++i) {
      if (expert_ids[i] != expert) continue;
      copy_row(args.x, i / top_k, args.out, next);
      row<int32_t>(args.position, 0)[i] = next++;
    }
  }
}

inline void moe_combine(const tm_moe_combine_args& args) {
  for (int64_t t = 0; t < args.out.shape[0]; ++t) {
    for (int64_t i = 0; i < args.out.shape[1]; ++i) {
      float sum = 0;
      for (int64_t j = 0; j < args.position.shape[1]; ++j) {
        sum += row(args.weights, t)[j] * row(args.x, row<int32_t>(args.position, t)[j])[i];
      }
      row(args.out, t)[i] = sum;
    }
  }
}

namespace detail {

// Generated occurrences of each listed or pending token of a row.
inline std::map<int32_t, int32_t> token_counts(const tm_logits_process_args& args, int64_t t) {
  std::map<int32_t, int32_t> counts;
  if (args.history_offsets.data) {
    const int32_t* range = row<int32_t>(args.history_offsets, t);
    for (int32_t i = range[0]; i < range[1]; ++i) {
      counts[*row<int32_t>(args.history_ids, i)] += *row<int32_t>(args.history_counts, i);
    }
  }
  for (int64_t j = 0; args.pending.data && j < args.pending.shape[1]; ++j) {
    const int32_t id = row<int32_t>(args.pending, t)[j];
    if (id >= 0) ++counts[id];
  }
  return counts;
}

}  // namespace detail

inline void logits_process(const tm_logits_process_args& args) {
  const auto value = [](const tm_tensor& tensor, int64_t t, float missing) {
    return tensor.data ? *row(tensor, t) : missing;
  };
  for (int64_t t = 0; t < args.logits.shape[0]; ++t) {
    float* logits = row(args.logits, t);
    const float repetition = value(args.repetition_penalty, t, 1);
    for (const auto& [id, count] : detail::token_counts(args, t)) {
      logits[id] = logits[id] > 0 ? logits[id] / repetition : logits[id] * repetition;
      if (count == 0) continue;
      const float frequency = value(args.frequency_penalty, t, 0) * static_cast<float>(count);
      logits[id] -= value(args.presence_penalty, t, 0) + frequency;
    }
    if (args.bias_offsets.data) {
      const int32_t* range = row<int32_t>(args.bias_offsets, t);
      for (int32_t i = range[0]; i < range[1]; ++i)
        logits[*row<int32_t>(args.bias_ids, i)] += *row(args.bias_values, i);
    }
    for (int64_t v = 0; args.bitmask.data && v < args.logits.shape[1]; ++v) {
      if (!(row<uint32_t>(args.bitmask, t)[v / 32] >> v % 32 & 1)) logits[v] = -kInfinity;
    }
  }
}

inline void sample(const tm_sample_args& args) {
  const int64_t vocabulary = args.logits.shape[1];
  for (int64_t t = 0; t < args.logits.shape[0]; ++t) {
    const float* logits = row(args.logits, t);
    const float temperature = *row(args.temperature, t);
    std::vector<int32_t> order = ranking(logits, vocabulary);
    int32_t& out = *row<int32_t>(args.out, t) = order[0];
    if (temperature == 0 || logits[order[0]] == -kInfinity) continue;
    const int32_t top_k = *row<int32_t>(args.top_k, t);
    if (top_k > 0 && top_k < vocabulary) order.resize(static_cast<size_t>(top_k));
    const auto mass = [&, best = logits[order[0]]](int32_t id) {
      return std::exp(static_cast<double>(logits[id] - best) / temperature);
    };
    double total = 0;
    for (const int32_t id : order) total += mass(id);
    const double limit = *row(args.top_p, t) < 1 ? *row(args.top_p, t) * total : kInfinity;
    double kept = 0;
    std::vector<int32_t> chosen;
    for (const int32_t id : order) {
      if (!chosen.empty() && (kept >= limit || mass(id) < *row(args.min_p, t))) break;
      kept += mass(id);
      chosen.push_back(id);
    }
    std::sort(chosen.begin(), chosen.end());
    out = chosen.back();
    double left = kept * uniform(*row<uint64_t>(args.seed, t), *row<uint64_t>(args.position, t));
    for (const int32_t id : chosen) {
      if ((left -= mass(id)) >= 0) continue;
      out = id;
      break;
    }
  }
}

inline void logprobs(const tm_logprobs_args& args) {
  const int64_t vocabulary = args.logits.shape[1];
  for (int64_t t = 0; t < args.logits.shape[0]; ++t) {
    const float* logits = row(args.logits, t);
    const float largest = *std::max_element(logits, logits + vocabulary);
    double total = 0;
    for (int64_t v = 0; v < vocabulary; ++v) total += std::exp(static_cast<double>(logits[v] - largest));
    const double shift = largest + std::log(total);
    const int32_t id = *row<int32_t>(args.ids, t);
    *row(args.logprobs, t) = static_cast<float>(logits[id] - shift);
    if (args.ranks.data) {
      const auto larger = std::count_if(logits, logits + vocabulary, [&](float x) { return x > logits[id]; });
      *row<int32_t>(args.ranks, t) = static_cast<int32_t>(larger);
    }
    if (!args.top_ids.data) continue;
    const std::vector<int32_t> order = ranking(logits, vocabulary);
    for (int64_t j = 0; j < args.top_ids.shape[1]; ++j) {
      const int32_t top = row<int32_t>(args.top_ids, t)[j] = order[static_cast<size_t>(j)];
      row(args.top_logprobs, t)[j] = static_cast<float>(logits[top] - shift);
    }
  }
}

}  // namespace turbomind::abi::host
