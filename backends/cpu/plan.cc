// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cpu {

Plan::Plan(Context&, const tm_plan_limits& limits) : limits_(limits) {
  abi::check_plan_limits(limits);
  cu_seqlens_q_.reserve(limits.max_seqs + 1);
  cu_seqlens_q_.push_back(0);
  context_lens_.reserve(limits.max_seqs);
  limits_.shapes = nullptr;  // the caller's; nothing here depends on them
  limits_.num_shapes = 0;
  block_table_.resize(limits.max_seqs * limits.max_blocks_per_seq);
}

void Plan::update(Stream&, const tm_step_meta& meta) {
  abi::check_step_meta(meta, limits_);
  num_seqs_ = meta.num_seqs;
  num_tokens_ = meta.num_tokens;
  padded_tokens_ = std::max(meta.num_tokens, meta.padded_tokens);
  cu_seqlens_q_.assign(meta.cu_seqlens_q, meta.cu_seqlens_q + meta.num_seqs + 1);
  copy_spans(meta);
  has_blocks_ = meta.block_table != nullptr && meta.context_lens != nullptr;
  context_lens_.clear();
  if (has_blocks_) {
    context_lens_.assign(meta.context_lens, meta.context_lens + meta.num_seqs);
    copy_block_table(meta);
  }
}

void Plan::copy_spans(const tm_step_meta& meta) {
  spans_.clear();
  first_span_.assign(meta.num_seqs + 1, 0);
  // A host of an older minor version knows none.
  const bool known = meta.struct_size >= offsetof(tm_step_meta, num_spans) + sizeof meta.num_spans;
  const int64_t num_spans = known ? meta.num_spans : 0;
  if (num_spans > 0 && !(meta.spans && meta.context_lens)) abi::reject_plan("spans need context_lens");
  for (int64_t i = 0; i < num_spans; ++i) {
    const int32_t seq = meta.spans[3 * i];
    const PositionSpan span{meta.spans[3 * i + 1], meta.spans[3 * i + 2]};
    const bool valid = seq >= 0 && seq < meta.num_seqs && span.begin >= 0 && span.begin < span.end &&
                       span.end <= meta.context_lens[seq] && (i == 0 || seq >= meta.spans[3 * i - 3]) &&
                       (first_span_[seq + 1] == 0 || spans_.back().end <= span.begin);
    if (!valid) {
      abi::reject_plan("spans[" + std::to_string(i) +
                       "] must follow the one before and lie inside its sequence's context");
    }
    spans_.push_back(span);
    first_span_[seq + 1] = static_cast<int32_t>(spans_.size());
  }
  for (int64_t seq = 0; seq < meta.num_seqs; ++seq) {
    first_span_[seq + 1] = std::max(first_span_[seq + 1], first_span_[seq]);
  }
}

void Plan::copy_block_table(const tm_step_meta& meta) {
  for (int64_t seq = 0; seq < meta.num_seqs; ++seq) {
    const int64_t blocks = (context_lens_[seq] + limits_.block_size - 1) / limits_.block_size;
    const int32_t* row = meta.block_table + seq * meta.block_table_stride;
    std::copy(row, row + blocks, block_table_.data() + seq * limits_.max_blocks_per_seq);
  }
}

}  // namespace turbomind::cpu
