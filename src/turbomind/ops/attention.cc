// SPDX-License-Identifier: Apache-2.0
#include "turbomind/ops/check.h"
#include "turbomind/ops/ops.h"

namespace turbomind {
namespace {

void check_rope(const ArgumentCheck& arg, const tm_rope_args& args) {
  arg.activation("q", args.q, {kAny, kAny, kAny});
  if (is_given(args.k)) arg.tensor("k", args.k, args.q.dtype, {args.q.shape[0], kAny, args.q.shape[2]});
  arg.require(args.rotary_dim > 0 && args.rotary_dim % 2 == 0 && args.rotary_dim <= args.q.shape[2], "rotary_dim",
              "a positive even number of at most the head size", args.rotary_dim);
  arg.dense("cos_sin", args.cos_sin, TM_F32, {kAny, args.rotary_dim});
  const int32_t* section = args.mrope_section;
  const int64_t pairs = int64_t{section[0]} + section[1] + section[2];
  if (pairs == 0) {
    arg.dense("positions", args.positions, TM_I32, {args.q.shape[0]});
    return;
  }
  arg.dense("positions", args.positions, TM_I32, {3, args.q.shape[0]});
  arg.require(pairs == args.rotary_dim / 2, "mrope_section", "sections that add up to rotary_dim / 2", pairs);
}

void check_kv_write(const ArgumentCheck& arg, const tm_kv_write_args& args) {
  arg.kv_pool(args.kv);
  const tm_kv_spec& spec = args.kv.spec;
  arg.activation("k", args.k, {kAny, spec.num_kv_heads, spec.head_dim_k});
  arg.tensor("v", args.v, args.k.dtype, {args.k.shape[0], spec.num_kv_heads, spec.head_dim_v});
  arg.handle("plan", args.plan);
}

}  // namespace

void Ops::rope(tm_rope_args args) {
  check_rope(ArgumentCheck("rope", device_), args);
  run(TM_OP_rope, device_.plugin().op().rope, args);
}

void Ops::kv_write(tm_kv_write_args args) {
  check_kv_write(ArgumentCheck("kv_write", device_), args);
  run(TM_OP_kv_write, device_.plugin().op().kv_write, args);
}

void Ops::qk_norm_rope_kv_write(tm_qk_norm_rope_kv_write_args args) {
  const ArgumentCheck arg("qk_norm_rope_kv_write", device_);
  check_rope(arg, args.rope);
  check_kv_write(arg, args.kv_write);
  arg.same_shape("rope.k", args.rope.k, args.kv_write.k);
  arg.require(args.rope.k.data == args.kv_write.k.data, "kv_write.k", "rope.k itself", "other memory");
  arg.optional("q_norm_weight", args.q_norm_weight, TM_F32, {args.rope.q.shape[2]});
  arg.optional("k_norm_weight", args.k_norm_weight, TM_F32, {args.rope.q.shape[2]});
  args.rope.struct_size = sizeof args.rope;
  args.kv_write.struct_size = sizeof args.kv_write;
  const auto slot = device_.plugin().op().qk_norm_rope_kv_write;
  slot ? run(TM_OP_qk_norm_rope_kv_write, slot, args) : compose(args);
}

void Ops::attention(tm_attention_args args) {
  const ArgumentCheck arg("attention", device_);
  arg.kv_pool(args.kv);
  const tm_kv_spec& spec = args.kv.spec;
  arg.activation("q", args.q, {kAny, kAny, spec.head_dim_k});
  const int64_t q_heads = args.q.shape[1];
  arg.require(q_heads % spec.num_kv_heads == 0, "q", "a multiple of the kv heads as query heads", q_heads);
  arg.handle("plan", args.plan);
  arg.require(args.window >= 0, "window", "a length >= 0", args.window);
  arg.require(args.softcap >= 0, "softcap", "a cap >= 0", args.softcap);
  arg.optional("sinks", args.sinks, TM_F32, {q_heads});
  arg.tensor("out", args.out, args.q.dtype, {args.q.shape[0], q_heads, spec.head_dim_v});
  run(TM_OP_attention, device_.plugin().op().attention, args);
}

void Ops::attention_dense(tm_attention_dense_args args) {
  const ArgumentCheck arg("attention_dense", device_);
  arg.activation("q", args.q, {kAny, kAny, kAny});
  arg.tensor("k", args.k, args.q.dtype, {args.q.shape[0], kAny, args.q.shape[2]});
  arg.tensor("v", args.v, args.q.dtype, {args.q.shape[0], args.k.shape[1], kAny});
  arg.require(args.k.shape[1] > 0 && args.q.shape[1] % args.k.shape[1] == 0, "q",
              "a multiple of the kv heads as query heads", args.q.shape[1]);
  arg.handle("plan", args.plan);
  arg.tensor("out", args.out, args.q.dtype, {args.q.shape[0], args.q.shape[1], args.v.shape[2]});
  arg.require(args.product_dtype == TM_F32 || args.product_dtype == TM_BF16, "product_dtype", "f32 or bf16",
              args.product_dtype);
  run(TM_OP_attention_dense, device_.plugin().op().attention_dense, args);
}

void Ops::kv_copy_blocks(tm_kv_copy_blocks_args args) {
  const ArgumentCheck arg("kv_copy_blocks", device_);
  arg.kv_pool(args.kv);
  arg.require(args.num_pairs >= 0, "num_pairs", "a count >= 0", args.num_pairs);
  for (int64_t i = 0; i < 2 * args.num_pairs; ++i) {
    arg.require(args.pairs[i] >= 0 && args.pairs[i] < args.kv.num_blocks, "pairs", "block ids of the pool",
                args.pairs[i]);
  }
  run(TM_OP_kv_copy_blocks, device_.plugin().op().kv_copy_blocks, args);
}

}  // namespace turbomind
