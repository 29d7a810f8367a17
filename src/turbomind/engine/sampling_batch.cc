// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/sampling_batch.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <utility>

namespace turbomind {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

// Tokens generated before the one being drawn, which the scheduler has counted as pending.
int64_t generated_before(const Sequence& sequence) { return sequence.num_generated() - 1; }

bool below_minimum(const Sequence& sequence) {
  const SamplingParams& params = sequence.params();
  const bool can_stop = !params.stop_token_ids.empty() || (!params.ignore_eos && !params.eos_token_ids.empty());
  return can_stop && generated_before(sequence) < params.min_new_tokens;
}

bool needs_processing(const Sequence& sequence) {
  const SamplingParams& params = sequence.params();
  return has_penalties(params) || !params.logit_bias.empty() || !params.bad_token_ids.empty() ||
         !params.allowed_token_ids.empty() || params.guide || below_minimum(sequence);
}

// Place of a row's group in the order of SamplingBatch.
int row_group(const Sequence& sequence) {
  const bool logprobs = sequence.params().logprobs >= 0;
  if (needs_processing(sequence)) return logprobs ? 1 : 0;
  return logprobs ? 2 : 3;
}

void add_row(const ScheduledSequence& scheduled, int32_t entry, int32_t hidden_row, SamplingBatch& batch) {
  const Sequence& sequence = *scheduled.sequence;
  const SamplingParams& params = sequence.params();
  batch.entries.push_back(entry);
  batch.hidden_rows.push_back(hidden_row);
  batch.temperature.push_back(params.temperature);
  batch.top_k.push_back(params.top_k);
  batch.top_p.push_back(params.top_p);
  batch.min_p.push_back(params.min_p);
  batch.seed.push_back(sequence.seed());
  batch.position.push_back(sequence.num_known() - 1);
  if (params.logprobs >= 0) batch.num_top = std::max(batch.num_top, params.logprobs);
}

void add_bias(const Sequence& sequence, LogitsProcessBatch& process) {
  const auto add = [&](int32_t token, float value) {
    process.bias_ids.push_back(token);
    process.bias_values.push_back(value);
  };
  const SamplingParams& params = sequence.params();
  for (const auto& [token, value] : params.logit_bias) add(token, value);
  for (const int32_t token : params.bad_token_ids) add(token, kForbidden);
  if (below_minimum(sequence)) {
    for (const int32_t token : params.stop_token_ids) add(token, kForbidden);
    if (!params.ignore_eos) {
      for (const int32_t token : params.eos_token_ids) add(token, kForbidden);
    }
  }
  process.bias_offsets.push_back(static_cast<int32_t>(process.bias_ids.size()));
}

void add_history(const Sequence& sequence, LogitsProcessBatch& process) {
  const SamplingParams& params = sequence.params();
  process.repetition_penalty.push_back(params.repetition_penalty);
  process.presence_penalty.push_back(params.presence_penalty);
  process.frequency_penalty.push_back(params.frequency_penalty);
  const TokenHistory& history = sequence.history;
  process.history_ids.insert(process.history_ids.end(), history.ids.begin(), history.ids.end());
  process.history_counts.insert(process.history_counts.end(), history.counts.begin(), history.counts.end());
  process.history_offsets.push_back(static_cast<int32_t>(process.history_ids.size()));
  // Besides the token being drawn, the one before may not have reached the host's history.
  process.pending_source.push_back(sequence.num_pending > 1 ? sequence.pending_row : -1);
}

void add_allowed(const SamplingParams& params, int32_t vocab_size, LogitsProcessBatch& process) {
  const size_t words = (static_cast<size_t>(vocab_size) + 31) / 32;
  const size_t begin = process.bitmask.size();
  process.bitmask.resize(begin + words, params.allowed_token_ids.empty() ? ~uint32_t{0} : 0);
  for (const int32_t token : params.allowed_token_ids) {
    process.bitmask[begin + static_cast<size_t>(token) / 32] |= uint32_t{1} << token % 32;
  }
}

void build_process(const StepPlan& plan, int32_t vocab_size, SamplingBatch& batch) {
  LogitsProcessBatch& process = batch.process;
  process.clear();
  const auto sequence = [&](int64_t row) -> const Sequence& {
    return *plan.sequences[static_cast<size_t>(batch.entries[static_cast<size_t>(row)])].sequence;
  };
  const auto any = [&](auto predicate) {
    for (int64_t row = 0; row < batch.num_processed; ++row) {
      if (predicate(sequence(row).params())) return true;
    }
    return false;
  };
  const bool penalties = any(has_penalties);
  const bool allowed =
      any([](const SamplingParams& params) { return params.guide || !params.allowed_token_ids.empty(); });
  process.bias_offsets.push_back(0);
  if (penalties) process.history_offsets.push_back(0);
  for (int64_t row = 0; row < batch.num_processed; ++row) {
    add_bias(sequence(row), process);
    if (penalties) add_history(sequence(row), process);
    if (allowed) add_allowed(sequence(row).params(), vocab_size, process);
    if (sequence(row).params().guide) batch.guided.push_back(static_cast<int32_t>(row));
  }
  if (process.bias_ids.empty()) process.bias_offsets.clear();
}

}  // namespace

void LogitsProcessBatch::clear() {
  repetition_penalty.clear();
  presence_penalty.clear();
  frequency_penalty.clear();
  history_offsets.clear();
  history_ids.clear();
  history_counts.clear();
  pending_source.clear();
  bias_offsets.clear();
  bias_ids.clear();
  bias_values.clear();
  bitmask.clear();
}

bool has_penalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0F || params.presence_penalty != 0.0F || params.frequency_penalty != 0.0F;
}

void build_sampling_batch(const StepPlan& plan, const std::vector<int32_t>& last_rows, int32_t vocab_size,
                          SamplingBatch& batch) {
  LogitsProcessBatch process = std::move(batch.process);
  batch = SamplingBatch{};
  batch.process = std::move(process);
  for (int group = 0; group < 4; ++group) {
    if (group == 1) batch.logprobs_begin = batch.rows();
    for (size_t i = 0; i < plan.sequences.size(); ++i) {
      const ScheduledSequence& scheduled = plan.sequences[i];
      if (!scheduled.samples || row_group(*scheduled.sequence) != group) continue;
      add_row(scheduled, static_cast<int32_t>(i), last_rows[i], batch);
    }
    if (group == 1) batch.num_processed = batch.rows();
    if (group == 2) batch.logprobs_end = batch.rows();
  }
  build_process(plan, vocab_size, batch);
}

MaskFill::MaskFill(const StepPlan& plan, SamplingBatch& batch, WorkerPool& workers)
    : plan_(plan), batch_(batch), workers_(workers), failures_(batch.guided.size()) {}

MaskFill::~MaskFill() {
  if (!started_) return;
  try {
    workers_.finish();
  } catch (...) {
    // What made the step fail is on its way to the caller.
  }
}

void MaskFill::start() {
  if (batch_.guided.empty()) return;
  workers_.start(batch_.guided.size(), [this](size_t index) { fill(index); });
  started_ = true;
}

std::vector<std::pair<int32_t, Error>> MaskFill::finish() {
  if (!started_) start();
  if (std::exchange(started_, false)) workers_.finish();
  std::vector<std::pair<int32_t, Error>> errors;
  for (size_t i = 0; i < failures_.size(); ++i) {
    if (failures_[i]) errors.emplace_back(batch_.guided[i], *failures_[i]);
  }
  return errors;
}

void MaskFill::fill(size_t index) {
  const auto row = static_cast<size_t>(batch_.guided[index]);
  const Sequence& sequence = *plan_.sequences[static_cast<size_t>(batch_.entries[row])].sequence;
  // Nobody reads what such a row draws.
  if (sequence.state == SequenceState::kFinished || plan_.id <= sequence.void_through) return;
  const size_t words = batch_.process.bitmask.size() / static_cast<size_t>(batch_.num_processed);
  const std::span mask = std::span(batch_.process.bitmask).subspan(row * words, words);
  std::fill(mask.begin(), mask.end(), 0);
  try {
    sequence.guide->fill_mask(mask);
  } catch (const Error& error) {
    std::fill(mask.begin(), mask.end(), ~uint32_t{0});
    failures_[index] = error;
  }
}

}  // namespace turbomind
