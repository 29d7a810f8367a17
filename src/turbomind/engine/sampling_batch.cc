// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/sampling_batch.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <span>
#include <utility>

namespace turbomind {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

// Tokens generated before the one being drawn, which the scheduler has counted as pending.
int64_t generated_before(const Sequence& sequence) { return sequence.num_generated() - 1; }

bool below_minimum(const Sequence& sequence) { return generated_before(sequence) < sequence.facts.min_new_tokens; }

// Groups of rows in the order of SamplingBatch.
enum Group : uint8_t { kProcessed, kProcessedLogprobs, kLogprobs, kPlain, kNumGroups, kNoDraw = kNumGroups };

Group group_of(const Sequence& sequence) {
  const bool logprobs = sequence.facts.logprobs >= 0;
  if (sequence.facts.processes_logits || below_minimum(sequence)) return logprobs ? kProcessedLogprobs : kProcessed;
  return logprobs ? kLogprobs : kPlain;
}

void resize(SamplingBatch& batch, size_t rows) {
  batch.entries.resize(rows);
  batch.hidden_rows.resize(rows);
  batch.temperature.resize(rows);
  batch.top_k.resize(rows);
  batch.top_p.resize(rows);
  batch.min_p.resize(rows);
  batch.seed.resize(rows);
  batch.position.resize(rows);
}

void set_row(const Sequence& sequence, size_t row, SamplingBatch& batch) {
  const StepFacts& facts = sequence.facts;
  batch.temperature[row] = facts.temperature;
  batch.top_k[row] = facts.top_k;
  batch.top_p[row] = facts.top_p;
  batch.min_p[row] = facts.min_p;
  batch.seed[row] = facts.seed;
  batch.position[row] = sequence.num_known() - 1;
  batch.num_top = std::max(batch.num_top, facts.logprobs);
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
    for (const int32_t token : sequence.stop_tokens) add(token, kForbidden);
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

// Whether what may be drawn depends on the tokens drawn before.
bool needs_tokens_before(const SamplingParams& params) { return params.guide || !params.bad_token_sequences.empty(); }

// Takes out of the mask what would end one of the sequence's bad sequences of tokens. Those of the prompt do not count.
void forbid_ends(const Sequence& sequence, std::span<uint32_t> mask) {
  const std::span generated = std::span(sequence.tokens).subspan(static_cast<size_t>(sequence.prompt_len()));
  for (const std::vector<int32_t>& bad : sequence.params().bad_token_sequences) {
    const size_t before = bad.size() - 1;
    if (before > generated.size() || !std::equal(bad.begin(), bad.end() - 1, generated.end() - before)) continue;
    const auto last = static_cast<size_t>(bad.back());
    mask[last / 32] &= ~(uint32_t{1} << last % 32);
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
      if (predicate(sequence(row))) return true;
    }
    return false;
  };
  const bool penalties = any([](const Sequence& drawing) { return drawing.facts.has_penalties; });
  const bool allowed = any([](const Sequence& drawing) {
    return needs_tokens_before(drawing.params()) || !drawing.params().allowed_token_ids.empty();
  });
  process.bias_offsets.push_back(0);
  if (penalties) process.history_offsets.push_back(0);
  for (int64_t row = 0; row < batch.num_processed; ++row) {
    add_bias(sequence(row), process);
    if (penalties) add_history(sequence(row), process);
    if (allowed) add_allowed(sequence(row).params(), vocab_size, process);
    if (needs_tokens_before(sequence(row).params())) batch.masked.push_back(static_cast<int32_t>(row));
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

void build_sampling_batch(const StepPlan& plan, const std::vector<int32_t>& last_rows, int32_t vocab_size,
                          SamplingBatch& batch) {
  batch.num_top = 0;
  batch.masked.clear();
  batch.groups.clear();
  std::array<size_t, kNumGroups + 1> ends{};  // of the groups' rows; of their numbers at first
  for (const ScheduledSequence& scheduled : plan.sequences) {
    batch.groups.push_back(scheduled.samples ? group_of(*scheduled.sequence) : kNoDraw);
    ++ends[batch.groups.back()];
  }
  std::array<size_t, kNumGroups> next{};
  for (size_t group = 1; group < kNumGroups; ++group) {
    next[group] = ends[group - 1];
    ends[group] += ends[group - 1];
  }
  resize(batch, ends[kPlain]);
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    if (batch.groups[i] == kNoDraw) continue;
    const size_t row = next[batch.groups[i]]++;
    batch.entries[row] = static_cast<int32_t>(i);
    batch.hidden_rows[row] = last_rows[i];
    set_row(*plan.sequences[i].sequence, row, batch);
  }
  batch.num_processed = static_cast<int64_t>(ends[kProcessedLogprobs]);
  batch.logprobs_begin = static_cast<int64_t>(ends[kProcessed]);
  batch.logprobs_end = static_cast<int64_t>(ends[kLogprobs]);
  build_process(plan, vocab_size, batch);
}

MaskFill::MaskFill(const StepPlan& plan, SamplingBatch& batch, WorkerPool& workers)
    : plan_(plan), batch_(batch), workers_(workers), failures_(batch.masked.size()) {}

MaskFill::~MaskFill() {
  if (!started_) return;
  try {
    workers_.finish();
  } catch (...) {
    // What made the step fail is on its way to the caller.
  }
}

void MaskFill::start() {
  if (batch_.masked.empty()) return;
  workers_.start(batch_.masked.size(), [this](size_t index) { fill(index); });
  started_ = true;
}

std::vector<std::pair<int32_t, Error>> MaskFill::finish() {
  if (!started_) start();
  if (std::exchange(started_, false)) workers_.finish();
  std::vector<std::pair<int32_t, Error>> errors;
  for (size_t i = 0; i < failures_.size(); ++i) {
    if (failures_[i]) errors.emplace_back(batch_.masked[i], *failures_[i]);
  }
  return errors;
}

void MaskFill::fill(size_t index) {
  const auto row = static_cast<size_t>(batch_.masked[index]);
  const Sequence& sequence = *plan_.sequences[static_cast<size_t>(batch_.entries[row])].sequence;
  // Nobody reads what such a row draws.
  if (sequence.state == SequenceState::kFinished || plan_.id <= sequence.void_through) return;
  const size_t words = batch_.process.bitmask.size() / static_cast<size_t>(batch_.num_processed);
  const std::span mask = std::span(batch_.process.bitmask).subspan(row * words, words);
  if (!sequence.guide) return forbid_ends(sequence, mask);
  std::fill(mask.begin(), mask.end(), 0);
  try {
    sequence.guide->fill_mask(mask);
  } catch (const Error& error) {
    std::fill(mask.begin(), mask.end(), ~uint32_t{0});
    failures_[index] = error;
  }
}

}  // namespace turbomind
