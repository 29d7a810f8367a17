// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/attention.h"

namespace turbomind {
namespace {

// Head ranges in rows (or columns) of a projection.
Range features(Range heads, int64_t head_dim) { return {heads.begin * head_dim, heads.count * head_dim}; }

std::vector<LinearPart> qkv_parts(const std::string& prefix, const AttentionConfig& config, Range heads,
                                  Range kv_heads) {
  const int64_t dim = config.head_dim;
  const Range kv_rows = features(kv_heads, dim);
  return {{prefix + "q_proj", config.num_heads * dim, features(heads, dim)},
          {prefix + "k_proj", config.num_kv_heads * dim, kv_rows},
          {prefix + "v_proj", config.num_kv_heads * dim, kv_rows}};
}

tm_kv_spec kv_spec(const LayerContext& context, Range kv_heads, int32_t head_dim) {
  return {.num_kv_heads = static_cast<int32_t>(kv_heads.count),
          .head_dim_k = head_dim,
          .head_dim_v = head_dim,
          .block_size = context.kv_block_size,
          .dtype = context.kv_dtype};
}

Tensor weight_of(const std::optional<RmsNorm>& norm) { return norm ? norm->weight() : Tensor{}; }

}  // namespace

Attention::Attention(const LayerContext& context, const std::string& prefix, const AttentionConfig& config,
                     int64_t hidden_size, float norm_eps, const RopeTable& rope)
    : config_(config),
      rope_(rope),
      heads_(equal_share("num_heads", config.num_heads, context.rank(), context.world_size())),
      kv_heads_(kv_head_share(config.num_kv_heads, context.rank(), context.world_size())),
      qkv_proj_(context, qkv_parts(prefix, config, heads_, kv_heads_), hidden_size, whole(hidden_size),
                config.qkv_bias),
      o_proj_(context, {{prefix + "o_proj", hidden_size, whole(hidden_size)}},
              int64_t{config.num_heads} * config.head_dim, features(heads_, config.head_dim), config.o_bias),
      norm_eps_(norm_eps),
      kv_pool_(context.device, context.stream, kv_spec(context, kv_heads_, config.head_dim)) {
  if (!config.qk_norm) return;
  q_norm_.emplace(context, prefix + "q_norm", config.head_dim, norm_eps);
  k_norm_.emplace(context, prefix + "k_norm", config.head_dim, norm_eps);
}

void Attention::forward(const StepContext& step, const Tensor& x) const {
  const Arena::Scope scope(step.arena);
  o_proj_.forward(step.ops, attend(step, step.plan, write_kv(step, x)), x);
}

void Attention::forward_rows(const StepContext& step, const Tensor& x, const WantedRows& wanted,
                             const Tensor& out) const {
  const Arena::Scope scope(step.arena);
  const Tensor all = write_kv(step, x);
  if (wanted.count() == 0) return;
  const int64_t width = heads_.count * config_.head_dim;
  const Tensor queries = step.arena.allocate("wanted_queries", x.dtype, {wanted.count(), width});
  step.ops.gather_rows({.in = reshape(all, {x.shape[0], width}), .index = wanted.rows, .out = queries});
  const Tensor heads = reshape(queries, {wanted.count(), heads_.count, int64_t{config_.head_dim}});
  o_proj_.forward(step.ops, attend(step, *wanted.plan, heads), out);
}

Tensor Attention::write_kv(const StepContext& step, const Tensor& x) const {
  const int64_t num_tokens = x.shape[0];
  const int64_t dim = config_.head_dim;
  const Tensor qkv = step.arena.allocate("qkv", x.dtype, {num_tokens, qkv_proj_.out_features()});
  qkv_proj_.forward(step.ops, x, qkv);

  const auto heads = [&](int64_t first, int64_t count) {
    return reshape(column_slice(qkv, first * dim, count * dim), {num_tokens, count, dim});
  };
  const Tensor k = heads(heads_.count, kv_heads_.count);
  const Tensor v = heads(heads_.count + kv_heads_.count, kv_heads_.count);
  tm_rope_args rope = rope_.args();
  rope.q = heads(0, heads_.count);
  rope.k = k;
  rope.positions = step.positions;
  step.ops.qk_norm_rope_kv_write({.rope = rope,
                                  .q_norm_weight = weight_of(q_norm_),
                                  .k_norm_weight = weight_of(k_norm_),
                                  .norm_eps = norm_eps_,
                                  .kv_write = {.k = k, .v = v, .kv = kv_pool_.view(), .plan = step.plan.handle()}});
  return rope.q;
}

Tensor Attention::attend(const StepContext& step, const Plan& plan, const Tensor& queries) const {
  const int64_t num_tokens = queries.shape[0];
  const int64_t dim = config_.head_dim;
  const Tensor out = step.arena.allocate("attention", queries.dtype, {num_tokens, heads_.count, dim});
  step.ops.attention({.q = queries,
                      .kv = kv_pool_.view(),
                      .plan = plan.handle(),
                      .scale = config_.scale,
                      .window = config_.window,
                      .softcap = config_.softcap,
                      .out = out});
  return reshape(out, {num_tokens, heads_.count * dim});
}

}  // namespace turbomind
