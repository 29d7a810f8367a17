// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "turbomind/engine/scheduler.h"

namespace turbomind::test {

inline constexpr int32_t kBlockSize = 4;

struct Submission {
  int32_t first_token = 0;
  int32_t priority = 0;
  std::string tenant;
  double weight = 1.0;
  std::string salt{};
  int32_t n = 1;
  int64_t max_new_tokens = 100;
  OutputRows hidden_states = OutputRows::kNone;
};

// A scheduler whose steps "run" by giving each sampling sequence a token.
class Bench {
 public:
  Bench(int64_t max_seqs, int64_t max_tokens, int32_t num_blocks)
      : cache(num_blocks, kBlockSize, true),
        scheduler({.max_num_seqs = max_seqs, .max_num_batched_tokens = max_tokens}, cache) {}

  SequencePtr add(int32_t prompt_len, const Submission& submission = {}) {
    auto request = std::make_shared<Request>();
    request->id = ++last_id_;
    request->prompt.resize(static_cast<size_t>(prompt_len));
    // Prompts of different requests share nothing.
    std::iota(request->prompt.begin(), request->prompt.end(), static_cast<int32_t>(last_id_) * 1000);
    request->params.priority = submission.priority;
    request->params.tenant = submission.tenant;
    request->params.tenant_weight = submission.weight;
    request->params.cache_salt = submission.salt;
    request->params.n = submission.n;
    request->params.output_last_hidden_state = submission.hidden_states;
    request->max_len = prompt_len + submission.max_new_tokens;
    std::vector<SequencePtr> sequences;
    for (int32_t i = 0; i < submission.n; ++i) sequences.push_back(std::make_shared<Sequence>(request, i));
    sequences[0]->siblings.assign(sequences.begin() + 1, sequences.end());
    scheduler.add(sequences[0]);
    return sequences[0];
  }

  StepPlan step() {
    StepPlan plan = scheduler.schedule(1.0);
    for (const ScheduledSequence& scheduled : plan.sequences) {
      Sequence& sequence = *scheduled.sequence;
      for (; sequence.num_pending > 0; --sequence.num_pending) sequence.tokens.push_back(7);
      if (sequence.at_length()) scheduler.finish(scheduled.sequence, true);
    }
    return plan;
  }

  KvCache cache;
  Scheduler scheduler;

 private:
  uint64_t last_id_ = 0;
};

// Tokens of the sequence in the step; -1: it has no part in it.
inline int64_t count_of(const StepPlan& plan, const SequencePtr& sequence) {
  for (const ScheduledSequence& scheduled : plan.sequences) {
    if (scheduled.sequence == sequence) return scheduled.count;
  }
  return -1;
}

}  // namespace turbomind::test
