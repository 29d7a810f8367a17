// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <thread>

#include "backend.h"
#include "recorder.h"

namespace turbomind::null_backend {
namespace {

using abi::host::row;

// Order-dependent mixing of two words (the finaliser of SplitMix64, Steele et al., OOPSLA 2014).
uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9E3779B97F4A7C15u + b + 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

// Numbers in activations stay below 2^24, where float32 is exact.
float mix_numbers(float a, float b) {
  return static_cast<float>(mix(static_cast<uint64_t>(a), static_cast<uint64_t>(b)) >> 40);
}

// The one number of row i; absent for a tensor without columns.
float& number(const tm_tensor& tensor, int64_t i) { return *row<float>(tensor, i); }

void copy_numbers(const tm_tensor& from, const tm_tensor& to) {
  for (int64_t i = 0; i < to.shape[0]; ++i) number(to, i) = number(from, i);
}

void mix_rows(const tm_tensor& a, const tm_tensor& b, const tm_tensor& out) {
  for (int64_t i = 0; i < out.shape[0]; ++i) number(out, i) = mix_numbers(number(a, i), number(b, i));
}

const abi::host::Step& step_of(const tm_plan* plan) { return abi::as<Plan>(plan)->step(); }

void compute(Context&, const tm_embedding_args& a) {
  for (int64_t i = 0; i < a.ids.shape[0]; ++i) number(a.out, i) = static_cast<float>(row<int32_t>(a.ids, 0)[i]);
}
void compute(Context&, const tm_rms_norm_args& a) { copy_numbers(a.x, a.out); }
void compute(Context&, const tm_layer_norm_args& a) { copy_numbers(a.x, a.out); }
void compute(Context&, const tm_activation_args& a) { copy_numbers(a.x, a.out); }
void compute(Context&, const tm_gated_activation_args& a) { mix_rows(a.gate, a.up, a.out); }
void compute(Context&, const tm_add_args& a) { mix_rows(a.a, a.b, a.out); }
void compute(Context&, const tm_cast_args& a) {
  if (a.in.dtype == TM_F32 && a.out.dtype == TM_F32) copy_numbers(a.in, a.out);
}
void compute(Context&, const tm_linear_args& a) {
  for (int w = 0; w < a.num_weights; ++w) copy_numbers(a.x, a.out[w]);
}
void compute(Context&, const tm_grouped_linear_args& a) { copy_numbers(a.x, a.out); }
void compute(Context&, const tm_rope_args&) {}

void compute(Context&, const tm_kv_write_args& a) {
  const abi::host::Step& step = step_of(a.plan);
  auto* places = static_cast<float*>(a.kv.data);
  step.for_rows(
      [&](int64_t i, int64_t sequence, int64_t position) { places[step.place(sequence, position)] = number(a.k, i); });
}

void compute(Context& context, const tm_attention_args& a) {
  const abi::host::Step& step = step_of(a.plan);
  const auto* places = static_cast<const float*>(a.kv.data);
  const bool reads_context = context.settings().tokens == TokenRule::kContext;
  step.for_rows([&](int64_t i, int64_t sequence, int64_t position) {
    float hash = 0;
    const int64_t begin = a.window > 0 ? std::max<int64_t>(0, position - a.window + 1) : 0;
    for (int64_t p = begin; reads_context && p <= position; ++p)
      hash = mix_numbers(hash, places[step.place(sequence, p)]);
    number(a.out, i) = hash;
  });
  for (int64_t i = step.num_tokens(); i < step.padded_tokens(); ++i) number(a.out, i) = 0;
}

void compute(Context&, const tm_attention_dense_args& a) { copy_numbers(a.v, a.out); }

void compute(Context&, const tm_gather_rows_args& a) { abi::host::gather_rows(a); }
void compute(Context&, const tm_scatter_rows_args& a) { abi::host::scatter_rows(a); }

// Every token goes to experts 0 .. top_k - 1.
void compute(Context&, const tm_moe_route_args& a) {
  for (int64_t i = 0; i < a.logits.shape[0] * a.top_k; ++i) {
    row<int32_t>(a.expert_ids, 0)[i] = static_cast<int32_t>(i % a.top_k);
    row<float>(a.weights, 0)[i] = 1.0f / static_cast<float>(a.top_k);
  }
}

void compute(Context&, const tm_moe_permute_args& a) {
  const int64_t num_tokens = a.expert_ids.shape[0];
  const int64_t top_k = a.expert_ids.shape[1];
  int32_t next = 0;
  for (int32_t expert = 0; expert <= a.num_experts; ++expert) {
    row<int32_t>(a.expert_offsets, 0)[expert] = next;
    for (int64_t i = 0; i < num_tokens * top_k; ++i) {
      if (row<int32_t>(a.expert_ids, 0)[i] != expert) continue;
      number(a.out, next) = number(a.x, i / top_k);
      row<int32_t>(a.position, 0)[i] = next++;
    }
  }
}

void compute(Context&, const tm_moe_combine_args& a) {
  const int64_t top_k = a.position.shape[1];
  for (int64_t i = 0; i < a.out.shape[0]; ++i) number(a.out, i) = number(a.x, row<int32_t>(a.position, 0)[i * top_k]);
}

// A row with a mask keeps its number, below 0; the other columns say which tokens are left, and token 0 never is.
void compute(Context&, const tm_logits_process_args& a) {
  if (!a.bitmask.data) return;
  for (int64_t i = 0; i < a.logits.shape[0]; ++i) {
    const uint32_t* mask = row<uint32_t>(a.bitmask, i);
    float* logits = row<float>(a.logits, i);
    logits[0] = -1 - logits[0];
    for (int64_t v = 1; v < a.logits.shape[1]; ++v) logits[v] = static_cast<float>(mask[v / 32] >> (v % 32) & 1);
  }
}

void compute(Context& context, const tm_sample_args& a) {
  const Settings& settings = context.settings();
  std::this_thread::sleep_for(std::chrono::microseconds(settings.sample_delay_us));
  const auto vocabulary = static_cast<uint64_t>(a.logits.shape[1]);
  for (int64_t i = 0; i < a.logits.shape[0]; ++i) {
    const auto position = static_cast<uint64_t>(row<int64_t>(a.position, 0)[i]);
    const uint64_t drawn = mix(row<uint64_t>(a.seed, 0)[i], position);
    uint64_t token = position;
    if (settings.tokens == TokenRule::kHash) token = drawn;
    if (settings.tokens == TokenRule::kContext) {
      const bool greedy = row<float>(a.temperature, 0)[i] == 0;
      const float value = number(a.logits, i);
      const bool masked = value < 0;
      token = mix(static_cast<uint64_t>(masked ? -1 - value : value), greedy ? 0 : drawn) % vocabulary;
      // The first one left from there on.
      for (uint64_t n = 0; masked && n < vocabulary; ++n) {
        if (token != 0 && row<float>(a.logits, i)[token] != 0) break;
        token = (token + 1) % vocabulary;
      }
    }
    row<int32_t>(a.out, 0)[i] = static_cast<int32_t>(token % vocabulary);
  }
}

void compute(Context&, const tm_logprobs_args& a) {
  const int64_t num_top = a.top_ids.data ? a.top_ids.shape[1] : 0;
  for (int64_t i = 0; i < a.logits.shape[0]; ++i) {
    row<float>(a.logprobs, 0)[i] = 0;
    if (a.ranks.data) row<int32_t>(a.ranks, 0)[i] = 0;
    for (int64_t j = 0; j < num_top; ++j) {
      row<int32_t>(a.top_ids, i)[j] = static_cast<int32_t>(j);
      row<float>(a.top_logprobs, i)[j] = 0;
    }
  }
}

// A place holds one float in every layer, so whole blocks are runs of floats. The host's pairs are copied before
// return.
void issue_block_copies(Stream& stream, const tm_kv_copy_blocks_args& a) {
  if (stream.capturing()) throw abi::Error(TM_INVALID_ARGUMENT, "kv_copy_blocks while capturing");
  const std::vector<int32_t> pairs(a.pairs, a.pairs + 2 * a.num_pairs);
  stream.issue([kv = a.kv, pairs] {
    Recorder::instance().record("kv_copy_blocks");
    auto* places = static_cast<float*>(kv.data);
    for (size_t i = 0; i < pairs.size(); i += 2) {
      std::copy_n(places + int64_t{pairs[i]} * kv.spec.block_size, kv.spec.block_size,
                  places + int64_t{pairs[i + 1]} * kv.spec.block_size);
    }
  });
}

template <class Args>
void issue(Stream& stream, const char* name, const Args& args) {
  if constexpr (std::is_same_v<Args, tm_kv_copy_blocks_args>) {
    issue_block_copies(stream, args);
  } else {
    stream.issue(
        [&context = stream.context(), name, args] {
          Recorder::instance().record(name);
          compute(context, args);
        },
        name);
  }
}

}  // namespace

#define TM_DEFINE_OP(name) \
  void Ops::name(Stream& stream, const tm_##name##_args& args, const tm_workspace&) { issue(stream, #name, args); }
TM_REQUIRED_OPS(TM_DEFINE_OP)
#undef TM_DEFINE_OP

}  // namespace turbomind::null_backend
