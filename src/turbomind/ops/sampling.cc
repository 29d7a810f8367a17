// SPDX-License-Identifier: Apache-2.0
#include "turbomind/ops/check.h"
#include "turbomind/ops/ops.h"

namespace turbomind {

void Ops::logits_process(tm_logits_process_args args) {
  const ArgumentCheck arg("logits_process", device_);
  arg.tensor("logits", args.logits, TM_F32, {kAny, kAny});
  const int64_t rows = args.logits.shape[0];
  arg.optional("repetition_penalty", args.repetition_penalty, TM_F32, {rows});
  arg.optional("presence_penalty", args.presence_penalty, TM_F32, {rows});
  arg.optional("frequency_penalty", args.frequency_penalty, TM_F32, {rows});
  if (is_given(args.history_offsets)) {
    arg.dense("history_offsets", args.history_offsets, TM_I32, {rows + 1});
    arg.dense("history_ids", args.history_ids, TM_I32, {kAny});
    arg.dense("history_counts", args.history_counts, TM_I32, {args.history_ids.shape[0]});
  }
  arg.optional("pending", args.pending, TM_I32, {rows, kAny});
  if (is_given(args.bias_offsets)) {
    arg.dense("bias_offsets", args.bias_offsets, TM_I32, {rows + 1});
    arg.dense("bias_ids", args.bias_ids, TM_I32, {kAny});
    arg.dense("bias_values", args.bias_values, TM_F32, {args.bias_ids.shape[0]});
  }
  arg.optional("bitmask", args.bitmask, TM_U32, {rows, (args.logits.shape[1] + 31) / 32});
  run(TM_OP_logits_process, device_.plugin().op().logits_process, args);
}

void Ops::sample(tm_sample_args args) {
  const ArgumentCheck arg("sample", device_);
  arg.tensor("logits", args.logits, TM_F32, {kAny, kAny});
  const int64_t rows = args.logits.shape[0];
  arg.require(args.logits.shape[1] > 0, "logits", "a vocabulary of at least 1", args.logits.shape[1]);
  arg.dense("temperature", args.temperature, TM_F32, {rows});
  arg.dense("top_k", args.top_k, TM_I32, {rows});
  arg.dense("top_p", args.top_p, TM_F32, {rows});
  arg.dense("min_p", args.min_p, TM_F32, {rows});
  arg.dense("seed", args.seed, TM_U64, {rows});
  arg.dense("position", args.position, TM_I64, {rows});
  arg.dense("out", args.out, TM_I32, {rows});
  run(TM_OP_sample, device_.plugin().op().sample, args);
}

void Ops::logprobs(tm_logprobs_args args) {
  const ArgumentCheck arg("logprobs", device_);
  arg.tensor("logits", args.logits, TM_F32, {kAny, kAny});
  const int64_t rows = args.logits.shape[0];
  arg.dense("ids", args.ids, TM_I32, {rows});
  arg.dense("logprobs", args.logprobs, TM_F32, {rows});
  arg.optional("ranks", args.ranks, TM_I32, {rows});
  if (is_given(args.top_ids)) {
    arg.dense("top_ids", args.top_ids, TM_I32, {rows, kAny});
    arg.require(args.top_ids.shape[1] <= args.logits.shape[1], "top_ids", "at most as many as the vocabulary",
                args.top_ids.shape[1]);
    arg.dense("top_logprobs", args.top_logprobs, TM_F32, {rows, args.top_ids.shape[1]});
  }
  run(TM_OP_logprobs, device_.plugin().op().logprobs, args);
}

}  // namespace turbomind
