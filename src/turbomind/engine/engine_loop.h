// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "turbomind/core/worker_pool.h"
#include "turbomind/engine/kv_cache.h"
#include "turbomind/engine/output_collector.h"
#include "turbomind/engine/queues.h"
#include "turbomind/engine/rank_group.h"
#include "turbomind/engine/request_table.h"
#include "turbomind/engine/scheduler.h"
#include "turbomind/engine/stats.h"
#include "turbomind/engine/step_batch.h"

namespace turbomind {

struct LoopConfig {
  SchedulerLimits limits;
  int32_t num_blocks;
  int32_t block_size;
  bool enable_prefix_caching;
  int32_t vocab_size;
  bool has_axes;                         // positions are in time, height and width
  bool bidirectional_media;              // the tokens of a picture see each other
  std::optional<EncoderBudget> encoder;  // none: the model takes no pictures
  size_t look_ahead;                     // steps issued before the tokens of an earlier one are read; 0 or 1
  size_t guide_threads;                  // share the guides of a step, the engine's among them
  // Replaces lost devices and all they held, an empty KV cache included; empty: a loss is final. May throw.
  std::function<void()> reopen_devices;
};

// The engine thread: plans a step, issues it, reads the tokens of the step that is due, hands out outputs. Owns all
// state but the queues.
class EngineLoop {
 public:
  EngineLoop(RankGroup& ranks, SubmitQueue& inbox, OutputQueue& outputs, LoopConfig config);

  // Until the inbox is closed and what it demands is done, or the device is lost for good.
  void run();
  // Any thread.
  EngineStats stats() const;

 private:
  // A step that was issued and whose tokens were not read.
  struct Flight {
    StepPlan plan;
    std::vector<int32_t> entries;  // of the plan, in the order of the sampled tokens
    std::vector<int32_t> guided;   // rows of these with a guide
    int64_t logprobs_begin = 0;
    int64_t logprobs_end = 0;
    std::vector<std::pair<int32_t, bool>> groups;  // entry, generation
    std::vector<GroupRows> rows;                   // per group
  };

  // One round; false when it was the last.
  bool turn();
  // After an exception from a round (no host memory, or a broken invariant; call it in the handler): nothing but the
  // requests at hand suffers. Ending them takes memory, too, so this is tried until there is some.
  void survive();
  void receive();
  void cancel(const SequencePtr& sequence);
  void expire_deadlines(double now);

  void step();
  void issue(Flight& flight);
  // Counts the requests whose first step this is; they do not wait any more.
  void count_admissions(const StepPlan& plan);
  // For sequences that were admitted and wait for an encoder: copies do not wait for their first step.
  // False: they failed, all requests have ended and the step's plan is void.
  bool issue_copies(const std::vector<BlockCopy>& copies);
  // Sets the encoders to work beside the steps.
  void start_encodes(const std::vector<EncodeJob>& jobs);
  // Pictures whose encoder is done may be read from here on.
  void poll_encoders();
  // The running sequences that wait for what was being encoded end with the error; steps go on.
  void fail_encodes(const Error& error);
  bool is_encoding() const { return encoder_stage_ && encoder_stage_->is_encoding(); }
  void issue_forward(const StepBatch& batch, Flight& flight);
  // Masks for the draws of the step being issued; first reads the step before it.
  void guide_draws(const Flight& flight, MaskFill& masks);
  void resolve();
  // True if nobody waits for what the sequence drew there.
  static bool is_void(const Flight& flight, const Sequence& sequence);
  static const Sequence& sequence_of(const Flight& flight, size_t row);
  // Returns the entries whose sequence was stopped by its token.
  std::vector<bool> accept_tokens(const Flight& flight, const SampledTokens& sampled, double now);
  // What a guide says of a token; an error ends the sequence.
  struct Verdict {
    bool accepted = true;
    int32_t token = 0;  // what counts as drawn
    std::optional<Error> error;
  };
  // By row; empty without guides.
  std::vector<Verdict> ask_guides(const Flight& flight, const std::vector<int32_t>& tokens);
  Verdict ask_guide(const Sequence& sequence, int32_t token) const;
  // The sequence draws another token instead, or has failed.
  void refuse(const SequencePtr& sequence, const Verdict& verdict);
  void accept_rows(Flight& flight, const std::vector<bool>& skip, const std::vector<bool>& stopped);
  void finish_computed_prompts(const Flight& flight, double now);

  // The sequences of all steps on their way end with the error; the others go on.
  void fail_flights(const Error& error);
  // Every request ends with the error, and planning starts from nothing. A lost device is opened again; where that
  // fails, the inbox closes.
  void fail_everything(const Error& error);
  // False if it cannot be done, or failed too often.
  bool recover_device();
  // Idle streams and no step on its way; the device counts as lost where that fails, too.
  void reset_runners();
  void reset_ranks(const std::function<void(Rank&)>& reset);
  // Until nothing uses the encoders' memory any more.
  void await_encoders();
  void fail(const SequencePtr& sequence, const Error& error);
  // A sequence has ended; counter counts its request if it was the last.
  void settle(Sequence& sequence, int64_t EngineStats::* counter);
  void fail_unservable();
  void rebuild();
  void publish();

  RankGroup& ranks_;
  SubmitQueue& inbox_;
  OutputQueue& outputs_;
  const LoopConfig config_;
  WorkerPool guide_workers_;
  std::unique_ptr<KvCache> kv_cache_;
  std::unique_ptr<EncoderStage> encoder_stage_;  // or null
  std::unique_ptr<Scheduler> scheduler_;
  BatchBuilder builder_;
  OutputCollector collector_;
  RequestTable requests_;
  SubmitQueue::Mail mail_;                // taken from the inbox
  size_t num_received_ = 0;               // of its requests
  bool has_nothing_but_encodes_ = false;  // to do until an encoder is done
  std::deque<Flight> flights_;
  SubmitQueue::Closing closing_ = SubmitQueue::Closing::kOpen;
  EngineStats counters_;
  int64_t preemptions_before_ = 0;  // by schedulers that were replaced
  BlockAges ages_before_;           // in caches that were replaced
  int64_t encoded_before_ = 0;      // by encoder stages that were replaced
  int64_t replays_before_ = 0;      // by runners that were replaced
  const Error out_of_memory_;       // made while there is memory for it
  int num_recoveries_ = 0;          // since the last step that worked
  std::optional<Error> loss_;       // of the device, for good: what was accepted since ends with it

  mutable std::mutex stats_mutex_;  // guards stats_
  EngineStats stats_;
};

}  // namespace turbomind
