// SPDX-License-Identifier: Apache-2.0
//
// The metadata of one step, copied from the host's arrays.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention.h"
#include "stream.h"

namespace turbomind::cpu {

class Plan {
 public:
  Plan(Context&, const tm_plan_limits& limits);

  // Throws abi::Error (TM_INVALID_ARGUMENT) if the metadata is inconsistent or beyond the limits.
  void update(Stream&, const tm_step_meta& meta);

  const tm_plan_limits& limits() const { return limits_; }
  int64_t num_seqs() const { return num_seqs_; }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t padded_tokens() const { return padded_tokens_; }  // rows of the step's tensors; at least num_tokens
  const int32_t* cu_seqlens_q() const { return cu_seqlens_q_.data(); }  // [num_seqs + 1]
  const int32_t* context_lens() const { return context_lens_.data(); }  // [num_seqs]; empty for attention_dense plans
  bool has_blocks() const { return has_blocks_; }

  // Pool block that holds position p of a sequence: block_table(seq)[p / block_size]. Blocks before every window may be
  // negative.
  const int32_t* block_table(int64_t seq) const { return block_table_.data() + seq * limits_.max_blocks_per_seq; }

  // Of a sequence, in order.
  const PositionSpan* spans_begin(int64_t seq) const { return spans_.data() + first_span_[seq]; }
  const PositionSpan* spans_end(int64_t seq) const { return spans_.data() + first_span_[seq + 1]; }

  // Position of token row `row` of sequence `seq` (row counted over the whole call).
  int64_t position(int64_t seq, int64_t row) const { return context_lens_[seq] - cu_seqlens_q_[seq + 1] + row; }

 private:
  void copy_block_table(const tm_step_meta& meta);
  void copy_spans(const tm_step_meta& meta);

  tm_plan_limits limits_;
  int64_t num_seqs_ = 0;
  int64_t num_tokens_ = 0;
  int64_t padded_tokens_ = 0;
  bool has_blocks_ = false;
  std::vector<int32_t> cu_seqlens_q_;
  std::vector<int32_t> context_lens_;
  std::vector<int32_t> block_table_;  // [max_seqs, max_blocks_per_seq]
  std::vector<PositionSpan> spans_;
  std::vector<int32_t> first_span_;  // [num_seqs + 1]
};

}  // namespace turbomind::cpu
