// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "turbomind/engine/encoder_stage.h"
#include "turbomind/engine/kv_cache.h"
#include "turbomind/engine/sequence.h"
#include "turbomind/engine/waiting_queue.h"

namespace turbomind {

// What a step does for one sequence: computes its tokens [begin, begin + count), then samples one more if it has
// reached its last known token.
struct ScheduledSequence {
  SequencePtr sequence;
  int64_t begin;
  int64_t count;  // 0: a sequence split off in this step; it samples from the row of row_owner
  bool samples;
  int32_t row_owner;               // index in StepPlan::sequences
  std::vector<MediaRows> media{};  // embeddings in place of its tokens'
};

struct StepPlan {
  uint64_t id = 0;  // counted from 1
  std::vector<ScheduledSequence> sequences;
  std::vector<BlockCopy> copies;   // before the step
  std::vector<EncodeJob> encodes;  // likewise, or beside it: see EncoderBudget::overlapped
  int64_t num_tokens = 0;
};

struct SchedulerLimits {
  int64_t max_num_seqs;
  int64_t max_num_batched_tokens;
};

// Decides what each step computes: one token budget, decoding sequences first, then prompts by tenants' shares.
// When KV blocks run out, the sequence to be served last gives its own back and is computed again later; the first one
// can always go on, so there is always progress. Owned by the engine thread.
class Scheduler {
 public:
  // encoder: null for a model that takes no pictures.
  Scheduler(SchedulerLimits limits, KvCache& kv_cache, EncoderStage* encoder = nullptr)
      : limits_(limits), kv_cache_(kv_cache), encoder_(encoder) {}

  void add(SequencePtr sequence) { waiting_.push(std::move(sequence)); }
  // Plans the next step and advances its sequences as if it had run. Empty if there is nothing to do. now: seconds.
  StepPlan schedule(double now);
  // Ends a sequence in any state. keep: what it has computed is valid and stays in the prefix cache.
  void finish(const SequencePtr& sequence, bool keep);
  // A sequence gives its blocks back, to draw its next token once more; what it has drawn on the device is dropped.
  void redraw(const SequencePtr& sequence);
  // All running sequences give their blocks back, whose content is not to be trusted, and begin again.
  void recompute_running();

  const std::vector<SequencePtr>& running() const { return running_; }
  int64_t num_waiting() const { return waiting_.size(); }
  SequencePtr first_waiting() const { return waiting_.front(); }
  uint64_t last_step() const { return step_; }
  int64_t num_preemptions() const { return num_preemptions_; }

 private:
  // A waiting sequence of higher priority takes the place of running ones of lower priority.
  void make_room_for_urgent();
  void schedule_decodes(StepPlan& plan);
  // Chunks of running sequences' prompts and new sequences, in the order of the waiting queue. admit: new ones may
  // join.
  void schedule_prompts(StepPlan& plan, bool admit, double now);
  // False: there is no room for it now.
  bool admit_waiting(StepPlan& plan, const SequencePtr& sequence, double now);
  // As much of the sequence's known tokens as the step can have.
  void add_chunk(StepPlan& plan, const SequencePtr& sequence);
  // Room for one token more at the expense of those behind it. False: it had to yield itself.
  bool preempt_to_grow(SequencePtr sequence);
  void preempt(const SequencePtr& sequence);
  // keep: as for finish.
  void send_back(const SequencePtr& sequence, bool keep);
  bool has_slots(const Sequence& sequence) const;
  // Tokens of the sequence, at most count, whose pictures the step can have.
  int64_t with_pictures(const Sequence& sequence, int64_t count);
  // scheduled: may be an element of running_, which siblings move.
  void add_to_step(StepPlan& plan, const SequencePtr& scheduled, int64_t count);
  // The prompt is computed: the request's other sequences join and share it.
  void split_off_siblings(StepPlan& plan, Sequence& parent, int32_t row_owner);
  void insert_running(const SequencePtr& sequence);

  SchedulerLimits limits_;
  KvCache& kv_cache_;
  EncoderStage* encoder_;
  WaitingQueue waiting_;
  std::vector<SequencePtr> running_;  // in order of precedes()
  int64_t reserved_slots_ = 0;        // for siblings that running sequences will split off
  int64_t budget_ = 0;                // tokens left in the step being planned
  uint64_t step_ = 0;
  int64_t num_preemptions_ = 0;
};

}  // namespace turbomind
