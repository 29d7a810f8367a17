// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/step_batch.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "turbomind/models/decoder.h"

namespace turbomind {
namespace {

// The block table's stride is a multiple of this, so that it does not change with every block.
constexpr size_t kTableStep = 16;
constexpr size_t kMostSpare = 4;    // times what is needed
constexpr uint64_t kNoVersion = 0;  // of Sequence::blocks

}  // namespace

const StepBatch& BatchBuilder::build(const StepPlan& plan) {
  clear();
  for (const ScheduledSequence& scheduled : plan.sequences) add_sequence(scheduled);
  update_block_table(plan);
  batch_.copies = plan.copies;
  batch_.encodes = plan.encodes;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    if (plan.sequences[i].sequence->facts.returns_rows) add_row_groups(plan.sequences[i], static_cast<int32_t>(i));
  }
  build_sampling_batch(plan, last_rows_, vocab_size_, batch_.sampling);
  const SamplingBatch& sampling = batch_.sampling;
  for (size_t row = 0; row < sampling.entries.size(); ++row) {
    plan.sequences[static_cast<size_t>(sampling.entries[row])].sequence->pending_row = static_cast<int32_t>(row);
  }
  num_sampled_before_ = sampling.rows();
  batch_.wanted.rows.clear();
  batch_.picks_wanted = false;
  const auto draws = [](const RowGroup& group) { return group.generation; };
  const bool only_drawn = std::all_of(batch_.row_groups.begin(), batch_.row_groups.end(), draws);
  if (batch_.num_tokens > batch_.num_seqs && only_drawn) pick_wanted();
  batch_.decode_only =
      batch_.num_tokens == batch_.num_seqs && sampling.rows() == batch_.num_tokens && batch_.row_groups.empty();
  return batch_;
}

void BatchBuilder::reset() {
  num_sampled_before_ = 0;
  table_versions_.clear();
}

void BatchBuilder::clear() {
  last_rows_.clear();
  batch_.num_tokens = 0;
  batch_.num_seqs = 0;
  batch_.token_ids.clear();
  for (std::vector<int32_t>& axis : batch_.positions) axis.clear();
  batch_.media_rows.clear();
  batch_.media_tokens.clear();
  batch_.spans.clear();
  batch_.pending_rows.assign(static_cast<size_t>(num_sampled_before_), -1);
  batch_.cu_seqlens_q.assign(1, 0);
  batch_.context_lens.clear();
  batch_.row_groups.clear();
  batch_.has_pending = false;
}

void BatchBuilder::add_sequence(const ScheduledSequence& scheduled) {
  if (scheduled.count == 0) {
    last_rows_.push_back(last_rows_[static_cast<size_t>(scheduled.row_owner)]);
    return;
  }
  const Sequence& sequence = *scheduled.sequence;
  add_media(scheduled);
  if (has_spans_) add_spans(scheduled);
  for (int64_t position = scheduled.begin; position < scheduled.begin + scheduled.count; ++position) {
    const bool known = position < static_cast<int64_t>(sequence.tokens.size());
    if (!known) {
      batch_.pending_rows[static_cast<size_t>(sequence.pending_row)] = static_cast<int32_t>(batch_.token_ids.size());
      batch_.has_pending = true;
    }
    batch_.token_ids.push_back(known ? sequence.tokens[static_cast<size_t>(position)] : 0);
    add_position(sequence, position);
  }
  batch_.num_tokens += scheduled.count;
  batch_.num_seqs += 1;
  batch_.cu_seqlens_q.push_back(static_cast<int32_t>(batch_.num_tokens));
  batch_.context_lens.push_back(static_cast<int32_t>(scheduled.begin + scheduled.count));
  last_rows_.push_back(static_cast<int32_t>(batch_.num_tokens) - 1);
}

void BatchBuilder::add_position(const Sequence& sequence, int64_t index) {
  if (!has_axes_) return batch_.positions[0].push_back(static_cast<int32_t>(index));
  const std::vector<int32_t>& given = sequence.request->media.positions;
  const auto prompt_len = static_cast<size_t>(sequence.prompt_len());
  for (size_t axis = 0; axis < batch_.positions.size(); ++axis) {
    const bool in_prompt = !given.empty() && index < sequence.prompt_len();
    const int32_t position = in_prompt ? given[axis * prompt_len + static_cast<size_t>(index)]
                                       : static_cast<int32_t>(index) + sequence.request->position_delta;
    batch_.positions[axis].push_back(position);
  }
}

void BatchBuilder::add_media(const ScheduledSequence& scheduled) {
  for (const MediaRows& media : scheduled.media) {
    auto token = static_cast<int32_t>(batch_.num_tokens + media.begin - scheduled.begin);
    for (const int32_t row : media.rows) {
      batch_.media_rows.push_back(row);
      batch_.media_tokens.push_back(token++);
    }
  }
}

void BatchBuilder::add_spans(const ScheduledSequence& scheduled) {
  for (const MediaSpan& span : scheduled.sequence->request->media.spans) {
    if (span.end() <= scheduled.begin || span.begin >= scheduled.begin + scheduled.count) continue;
    batch_.spans.insert(batch_.spans.end(), {static_cast<int32_t>(batch_.num_seqs), static_cast<int32_t>(span.begin),
                                             static_cast<int32_t>(span.end())});
  }
}

void BatchBuilder::update_block_table(const StepPlan& plan) {
  size_t width = 1;
  for (const ScheduledSequence& scheduled : plan.sequences) {
    if (scheduled.count > 0) width = std::max(width, scheduled.sequence->blocks.size());
  }
  auto stride = static_cast<size_t>(batch_.block_table_stride);
  const auto rows = static_cast<size_t>(batch_.num_seqs);
  // Not wider for ever after one long sequence: there are plug-ins that copy all of it.
  if (width > stride || stride > kMostSpare * (width + kTableStep)) {
    table_versions_.clear();
    stride = (width + kTableStep - 1) / kTableStep * kTableStep;
    batch_.block_table_stride = static_cast<int64_t>(stride);
  }
  if (rows > table_versions_.size()) {
    table_versions_.resize(rows, kNoVersion);
    batch_.block_table.resize(rows * stride);
  }
  size_t row = 0;
  for (const ScheduledSequence& scheduled : plan.sequences) {
    if (scheduled.count == 0) continue;
    const Sequence& sequence = *scheduled.sequence;
    if (table_versions_[row] != sequence.blocks_version) {
      const auto begin = batch_.block_table.begin() + static_cast<std::ptrdiff_t>(row * stride);
      const auto end = std::copy(sequence.blocks.begin(), sequence.blocks.end(), begin);
      std::fill(end, begin + static_cast<std::ptrdiff_t>(stride), 0);
      table_versions_[row] = sequence.blocks_version;
    }
    ++row;
  }
}

void BatchBuilder::pick_wanted() {
  WantedBatch& wanted = batch_.wanted;
  // Sequences that part in this step draw from one row.
  wanted.rows = batch_.sampling.hidden_rows;
  std::sort(wanted.rows.begin(), wanted.rows.end());
  wanted.rows.erase(std::unique(wanted.rows.begin(), wanted.rows.end()), wanted.rows.end());
  batch_.picks_wanted = static_cast<int64_t>(wanted.rows.size()) <= StepInput::most_wanted(batch_.num_tokens);
  if (!batch_.picks_wanted) return wanted.rows.clear();
  wanted.cu_seqlens_q.resize(wanted.rows.size() + 1);
  std::iota(wanted.cu_seqlens_q.begin(), wanted.cu_seqlens_q.end(), 0);
  wanted.context_lens.clear();
  wanted.block_table.clear();
  size_t seq = 0;
  for (const int32_t row : wanted.rows) {
    while (batch_.cu_seqlens_q[seq + 1] <= row) ++seq;
    wanted.context_lens.push_back(batch_.context_lens[seq]);
    const auto table = batch_.block_table.begin() + static_cast<std::ptrdiff_t>(seq) * batch_.block_table_stride;
    wanted.block_table.insert(wanted.block_table.end(), table, table + batch_.block_table_stride);
  }
}

void BatchBuilder::add_row_groups(const ScheduledSequence& scheduled, int32_t entry) {
  const SamplingParams& params = scheduled.sequence->params();
  if (scheduled.sequence->index == 0) add_prompt_rows(scheduled, entry);
  const bool logits = params.output_logits != OutputRows::kNone;
  const bool hidden = params.output_last_hidden_state != OutputRows::kNone;
  if (!scheduled.samples || (!logits && !hidden)) return;
  batch_.row_groups.push_back({.entry = entry,
                               .first_row = last_rows_[static_cast<size_t>(entry)],
                               .num_rows = 1,
                               .logits = logits,
                               .hidden = hidden,
                               .generation = true});
}

void BatchBuilder::add_prompt_rows(const ScheduledSequence& scheduled, int32_t entry) {
  Sequence& sequence = *scheduled.sequence;
  const SamplingParams& params = sequence.params();
  const bool logits = params.output_logits == OutputRows::kAll;
  const bool hidden = params.output_last_hidden_state == OutputRows::kAll;
  if (!logits && !hidden && params.prompt_logprobs < 0) return;
  // The prompt's last row belongs to the generation, if there is one.
  const int64_t prompt_end = sequence.prompt_len() - (params.max_new_tokens > 0);
  const int64_t begin = std::max(scheduled.begin, sequence.rows_returned);
  const int64_t end = std::min(scheduled.begin + scheduled.count, prompt_end);
  if (begin >= end) return;
  sequence.rows_returned = end;
  const auto chunk_row = last_rows_[static_cast<size_t>(entry)] - static_cast<int32_t>(scheduled.count - 1);
  RowGroup group{.entry = entry,
                 .first_row = chunk_row + static_cast<int32_t>(begin - scheduled.begin),
                 .num_rows = static_cast<int32_t>(end - begin),
                 .logits = logits,
                 .hidden = hidden};
  if (params.prompt_logprobs >= 0) {
    const auto& prompt = sequence.request->prompt;
    group.num_targets = static_cast<int32_t>(std::min(end, sequence.prompt_len() - 1) - begin);
    group.num_top = params.prompt_logprobs;
    group.targets.assign(prompt.begin() + begin + 1, prompt.begin() + begin + 1 + group.num_targets);
    group.targets.resize(static_cast<size_t>(group.num_rows), 0);
  }
  batch_.row_groups.push_back(std::move(group));
}

}  // namespace turbomind
