// SPDX-License-Identifier: Apache-2.0
//
// Every op this backend offers; an op that is not declared here becomes a NULL slot. An op that needs scratch memory
// declares <op>_workspace(context, args) beside it.
#pragma once

#include "stream.h"

namespace turbomind::cuda {

struct CudaOps {
  // ops/linear.cc
  static void linear(Stream&, const tm_linear_args&, const tm_workspace&);
  static size_t linear_workspace(Context&, const tm_linear_args&);
  static void linear_gated_activation(Stream&, const tm_linear_gated_activation_args&, const tm_workspace&);
  static size_t linear_gated_activation_workspace(Context&, const tm_linear_gated_activation_args&);
  static void grouped_linear(Stream&, const tm_grouped_linear_args&, const tm_workspace&);

  // ops/norm.cc
  static void rms_norm(Stream&, const tm_rms_norm_args&, const tm_workspace&);
  static void layer_norm(Stream&, const tm_layer_norm_args&, const tm_workspace&);
  static void add_rms_norm(Stream&, const tm_add_rms_norm_args&, const tm_workspace&);

  // ops/elementwise.cc
  static void activation(Stream&, const tm_activation_args&, const tm_workspace&);
  static void gated_activation(Stream&, const tm_gated_activation_args&, const tm_workspace&);
  static void add(Stream&, const tm_add_args&, const tm_workspace&);
  static void softcap(Stream&, const tm_softcap_args&, const tm_workspace&);
  static void cast(Stream&, const tm_cast_args&, const tm_workspace&);

  // ops/rope.cc
  static void rope(Stream&, const tm_rope_args&, const tm_workspace&);
  static void kv_write(Stream&, const tm_kv_write_args&, const tm_workspace&);
  static void qk_norm_rope_kv_write(Stream&, const tm_qk_norm_rope_kv_write_args&, const tm_workspace&);

  // ops/kv.cc
  static void kv_copy_blocks(Stream&, const tm_kv_copy_blocks_args&, const tm_workspace&);
  static void kv_export(Stream&, const tm_kv_pool&, const int32_t* block_ids, int64_t num_ids, void* dst);
  static void kv_import(Stream&, const tm_kv_pool&, const int32_t* block_ids, int64_t num_ids, const void* src);

  // ops/attention.cc
  static void attention(Stream&, const tm_attention_args&, const tm_workspace&);
  static size_t attention_workspace(Context&, const tm_attention_args&);
  static void attention_dense(Stream&, const tm_attention_dense_args&, const tm_workspace&);

  // ops/rows.cc
  static void embedding(Stream&, const tm_embedding_args&, const tm_workspace&);
  static void gather_rows(Stream&, const tm_gather_rows_args&, const tm_workspace&);
  static void scatter_rows(Stream&, const tm_scatter_rows_args&, const tm_workspace&);

  // ops/moe.cc
  static void moe_route(Stream&, const tm_moe_route_args&, const tm_workspace&);
  static void moe_permute(Stream&, const tm_moe_permute_args&, const tm_workspace&);
  static size_t moe_permute_workspace(Context&, const tm_moe_permute_args&);
  static void moe_combine(Stream&, const tm_moe_combine_args&, const tm_workspace&);

  // ops/logits.cc
  static void logits_process(Stream&, const tm_logits_process_args&, const tm_workspace&);
  static void sample(Stream&, const tm_sample_args&, const tm_workspace&);
  static void logprobs(Stream&, const tm_logprobs_args&, const tm_workspace&);
};

}  // namespace turbomind::cuda
