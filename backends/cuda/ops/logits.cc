// SPDX-License-Identifier: Apache-2.0
#include "kernels/logits.h"

#include "ops.h"
#include "ops/tensor_args.h"

namespace turbomind::cuda {

void CudaOps::logits_process(Stream& stream, const tm_logits_process_args& args, const tm_workspace&) {
  require_matrix(args.logits, TM_F32, "logits");
  require_vector(args.repetition_penalty, TM_F32, "repetition_penalty");
  require_vector(args.presence_penalty, TM_F32, "presence_penalty");
  require_vector(args.frequency_penalty, TM_F32, "frequency_penalty");
  require_vector(args.history_offsets, TM_I32, "history_offsets");
  require_vector(args.history_ids, TM_I32, "history_ids");
  require_vector(args.history_counts, TM_I32, "history_counts");
  if (given(args.pending)) require_matrix(args.pending, TM_I32, "pending");
  require_vector(args.bias_offsets, TM_I32, "bias_offsets");
  require_vector(args.bias_ids, TM_I32, "bias_ids");
  require_vector(args.bias_values, TM_F32, "bias_values");
  if (given(args.bitmask)) {
    require_matrix(args.bitmask, TM_U32, "bitmask");
    require(args.bitmask.shape[1] * 32 >= args.logits.shape[1], "bitmask", "a bit for every token");
  }
  launch_logits_process(stream.handle(), args);
}

void CudaOps::sample(Stream& stream, const tm_sample_args& args, const tm_workspace&) {
  require_matrix(args.logits, TM_F32, "logits");
  require_vector(args.temperature, TM_F32, "temperature");
  require_vector(args.top_k, TM_I32, "top_k");
  require_vector(args.top_p, TM_F32, "top_p");
  require_vector(args.min_p, TM_F32, "min_p");
  require_vector(args.seed, TM_U64, "seed");
  require_vector(args.position, TM_I64, "position");
  require_vector(args.out, TM_I32, "out");
  require(args.logits.shape[0] == 0 || args.logits.shape[1] > 0, "logits", "a vocabulary of at least 1");
  launch_sample(stream.handle(), args);
}

void CudaOps::logprobs(Stream& stream, const tm_logprobs_args& args, const tm_workspace&) {
  require_matrix(args.logits, TM_F32, "logits");
  require_vector(args.ids, TM_I32, "ids");
  require_vector(args.logprobs, TM_F32, "logprobs");
  require_vector(args.ranks, TM_I32, "ranks");
  if (given(args.top_ids)) {
    require_matrix(args.top_ids, TM_I32, "top_ids");
    require_matrix(args.top_logprobs, TM_F32, "top_logprobs");
    require(args.top_ids.shape[1] <= args.logits.shape[1], "top_ids",
            "at most " + std::to_string(args.logits.shape[1]) + " columns");
  }
  launch_logprobs(stream.handle(), args);
}

}  // namespace turbomind::cuda
