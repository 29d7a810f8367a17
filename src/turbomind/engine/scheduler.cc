// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/scheduler.h"

#include <algorithm>
#include <utility>

namespace turbomind {
namespace {

bool wants_compute(const Sequence& sequence, uint64_t step) {
  if (sequence.num_uncomputed() == 0 || sequence.last_step == step) return false;
  return sequence.num_generated() == 0 || !sequence.at_length();
}

}  // namespace

StepPlan Scheduler::schedule(double now) {
  StepPlan plan;
  plan.id = step_ + 1;
  plan.sequences.reserve(running_.size());
  budget_ = limits_.max_num_batched_tokens;
  kv_cache_.set_time(now);
  if (encoder_) encoder_->begin_step();
  make_room_for_urgent();
  const int64_t preemptions = num_preemptions_;
  schedule_decodes(plan);
  if (encoder_ && !plan.sequences.empty()) encoder_->spare_decodes();
  // Blocks are short: what was just given back is for the running ones.
  schedule_prompts(plan, num_preemptions_ == preemptions, now);
  plan.copies = kv_cache_.take_copies();
  if (encoder_) plan.encodes = encoder_->take_jobs();
  if (!plan.sequences.empty()) step_ = plan.id;
  return plan;
}

void Scheduler::make_room_for_urgent() {
  const SequencePtr urgent = waiting_.front();
  while (urgent && !running_.empty() && running_.back()->params().priority < urgent->params().priority) {
    const auto spare = static_cast<int64_t>(running_.size());
    if (has_slots(*urgent) && kv_cache_.fits(*urgent, spare, step_ + 1)) return;
    preempt(running_.back());
  }
}

void Scheduler::schedule_decodes(StepPlan& plan) {
  // The sequences before i are in the step; preemption takes from the end, so never one of them.
  for (size_t i = 0; i < running_.size(); ++i) {
    if (i + kPrefetchDistance < running_.size()) prefetch(*running_[i + kPrefetchDistance]);
    const Sequence& sequence = *running_[i];
    if (sequence.num_uncomputed() != 1 || !wants_compute(sequence, plan.id)) continue;
    if (with_pictures(sequence, 1) == 0) continue;
    if (!kv_cache_.grow(*running_[i]) && !preempt_to_grow(running_[i])) return;
    add_to_step(plan, running_[i], 1);
  }
}

void Scheduler::schedule_prompts(StepPlan& plan, bool admit, double now) {
  // Taken down first: sequences that are admitted or split off meanwhile have had their part of this step.
  std::vector<SequencePtr> prefills;
  for (const SequencePtr& sequence : running_) {
    if (sequence->num_uncomputed() > 1 && wants_compute(*sequence, plan.id)) prefills.push_back(sequence);
  }
  const auto before = [](const SequencePtr& a, const SequencePtr& b) { return WaitingQueue::goes_before(*a, *b); };
  while (budget_ > 0) {
    const auto next = std::min_element(prefills.begin(), prefills.end(), before);
    const SequencePtr waiting = admit ? waiting_.front() : nullptr;
    if (waiting && (next == prefills.end() || before(waiting, *next))) {
      admit = admit_waiting(plan, waiting, now);
    } else if (next != prefills.end()) {
      const SequencePtr sequence = *next;
      prefills.erase(next);
      add_chunk(plan, sequence);
    } else {
      return;
    }
  }
}

bool Scheduler::admit_waiting(StepPlan& plan, const SequencePtr& sequence, double now) {
  // A pending token of a preempted sequence is known after the step on its way.
  if (sequence->num_pending > 0 || !has_slots(*sequence)) return false;
  // Each running sequence will soon need one more block.
  if (!kv_cache_.admit(*sequence, static_cast<int64_t>(running_.size()), plan.id)) return false;
  waiting_.erase(sequence);
  if (!sequence->admitted) {
    sequence->admitted = true;
    sequence->cached_tokens = sequence->num_computed;
    sequence->times.first_scheduled = now;
  }
  sequence->state = SequenceState::kRunning;
  reserved_slots_ += static_cast<int64_t>(sequence->siblings.size());
  insert_running(sequence);
  add_chunk(plan, sequence);
  return true;
}

void Scheduler::add_chunk(StepPlan& plan, const SequencePtr& sequence) {
  const int64_t count = with_pictures(*sequence, std::min(budget_, sequence->num_uncomputed()));
  if (count > 0) add_to_step(plan, sequence, count);
}

int64_t Scheduler::with_pictures(const Sequence& sequence, int64_t count) {
  return encoder_ ? encoder_->plan(sequence, sequence.num_computed, count) : count;
}

bool Scheduler::preempt_to_grow(SequencePtr sequence) {
  do {
    const SequencePtr victim = running_.back();
    preempt(victim);
    if (victim == sequence) return false;
  } while (!kv_cache_.grow(*sequence));
  return true;
}

void Scheduler::preempt(const SequencePtr& sequence) {
  send_back(sequence, true);
  ++sequence->preemptions;
  ++num_preemptions_;
}

void Scheduler::redraw(const SequencePtr& sequence) {
  sequence->num_pending = 0;
  sequence->void_through = step_;
  if (sequence->state == SequenceState::kRunning) send_back(sequence, true);
}

void Scheduler::recompute_running() {
  while (!running_.empty()) {
    const SequencePtr sequence = running_.back();
    send_back(sequence, false);
  }
}

void Scheduler::send_back(const SequencePtr& sequence, bool keep) {
  kv_cache_.release(*sequence, keep, step_);
  std::erase(running_, sequence);
  reserved_slots_ -= static_cast<int64_t>(sequence->siblings.size());
  sequence->state = SequenceState::kWaiting;
  waiting_.push(sequence);
}

bool Scheduler::has_slots(const Sequence& sequence) const {
  const auto taken = static_cast<int64_t>(running_.size()) + reserved_slots_;
  return taken + 1 + static_cast<int64_t>(sequence.siblings.size()) <= limits_.max_num_seqs;
}

void Scheduler::add_to_step(StepPlan& plan, const SequencePtr& scheduled, int64_t count) {
  Sequence& sequence = *scheduled;
  const auto index = static_cast<int32_t>(plan.sequences.size());
  const int64_t begin = sequence.num_computed;
  sequence.num_computed += count;
  sequence.last_step = plan.id;
  plan.num_tokens += count;
  budget_ -= count;
  // What is computed again after a preemption is not the tenant's doing.
  WaitingQueue::charge(sequence, std::clamp<int64_t>(sequence.num_computed - sequence.num_charged, 0, count));
  sequence.num_charged = std::max(sequence.num_charged, sequence.num_computed);
  kv_cache_.commit(sequence, plan.id);
  const bool reached = sequence.num_uncomputed() == 0;
  const bool samples = reached && !sequence.at_length();
  plan.sequences.push_back({scheduled, begin, count, samples, index});
  if (encoder_) plan.sequences.back().media = encoder_->rows_of(sequence, begin, count);
  if (reached && !sequence.siblings.empty()) split_off_siblings(plan, sequence, index);
  sequence.num_pending += samples;
}

void Scheduler::split_off_siblings(StepPlan& plan, Sequence& parent, int32_t row_owner) {
  reserved_slots_ -= static_cast<int64_t>(parent.siblings.size());
  for (const SequencePtr& sibling : std::exchange(parent.siblings, {})) {
    kv_cache_.fork(parent, *sibling);
    sibling->state = SequenceState::kRunning;
    sibling->share = parent.share;
    sibling->last_step = plan.id;
    sibling->admitted = true;
    sibling->cached_tokens = parent.cached_tokens;
    sibling->times.first_scheduled = parent.times.first_scheduled;
    insert_running(sibling);
    const bool samples = !sibling->at_length();
    plan.sequences.push_back({sibling, sibling->num_computed, 0, samples, row_owner});
    sibling->num_pending += samples;
  }
}

void Scheduler::insert_running(const SequencePtr& sequence) {
  const auto after = [](const SequencePtr& a, const SequencePtr& b) { return precedes(*a, *b); };
  running_.insert(std::upper_bound(running_.begin(), running_.end(), sequence, after), sequence);
}

void Scheduler::finish(const SequencePtr& sequence, bool keep) {
  if (sequence->state == SequenceState::kRunning) {
    kv_cache_.release(*sequence, keep, step_);
    std::erase(running_, sequence);
    reserved_slots_ -= static_cast<int64_t>(sequence->siblings.size());
  } else if (sequence->state == SequenceState::kWaiting) {
    waiting_.erase(sequence);
  }
  sequence->state = SequenceState::kFinished;
}

}  // namespace turbomind
