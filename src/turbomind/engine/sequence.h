// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "turbomind/engine/block_manager.h"
#include "turbomind/engine/media.h"
#include "turbomind/engine/request.h"

namespace turbomind {

// A submitted request; read-only from then on.
struct Request {
  uint64_t id = 0;
  std::vector<int32_t> prompt;
  SamplingParams params;  // seed is set
  MediaInput media;
  int32_t position_delta = 0;  // what positions on axes are ahead of a generated token's number
  int64_t max_len = 0;         // tokens, prompt included, at which its sequences end
  double arrival = 0.0;        // seconds on the steady clock
};

// How often a sequence has used which token, for the penalties. Distinct tokens in order of their first use.
struct TokenHistory {
  std::vector<int32_t> ids;
  std::vector<int32_t> counts;  // generated occurrences; 0 = in the prompt only
  std::unordered_map<int32_t, size_t> places;

  void add(int32_t token, int32_t count) {
    const auto [it, inserted] = places.try_emplace(token, ids.size());
    if (inserted) {
      ids.push_back(token);
      counts.push_back(0);
    }
    counts[it->second] += count;
  }
};

enum class SequenceState {
  kWaiting,  // holds no KV blocks: not scheduled yet, or preempted
  kRunning,
  kFinished,
};

// A tenant's part of the engine, see WaitingQueue.
struct TenantShare {
  double virtual_time = 0.0;  // tokens
};

// What every step asks of a request, as one of its sequences keeps it: a step of hundreds of them costs the memory it
// reads, and the request's own lies scattered over a dozen cache lines.
struct StepFacts {
  StepFacts(const Request& request, int32_t index);

  uint64_t request_id;
  int64_t prompt_len;
  int64_t max_len;
  int64_t min_new_tokens;  // before which what would stop it is not drawn; 0 if nothing can
  uint64_t seed;
  double tenant_weight;
  float temperature;
  int32_t top_k;
  float top_p;
  float min_p;
  int32_t logprobs;
  bool processes_logits;  // at any draw
  bool has_penalties;
  bool returns_rows;  // logits, hidden states or logprobs of prompt tokens
  bool draws;         // false: only the prompt is computed
};

// One of the n answers to a request; state of the engine thread. Tokens are known (prompt, then sampled) or computed
// (their KV is in the blocks, or will be after the steps on their way). num_computed < num_known() asks for work. What
// each step touches comes first and lies together.
struct Sequence {
  Sequence(std::shared_ptr<const Request> of, int32_t which);

  SequenceState state = SequenceState::kWaiting;
  int32_t num_pending = 0;  // tokens sampled, but still on the device: one per step on its way
  int32_t pending_row = 0;  // row of the last of them among the tokens its step sampled
  bool in_steps = false;    // the request's first step is behind it
  int64_t num_computed = 0;
  int64_t num_charged = 0;             // leading tokens that its tenant's share has paid for
  uint64_t last_step = 0;              // the last step it was part of
  int64_t writable_end = 0;            // before this position its last block is its own and may be written
  std::vector<int32_t> blocks;         // block table; block i holds tokens [i * block_size, (i + 1) * block_size)
  uint64_t blocks_version = 0;         // a new number whenever `blocks` changes
  uint64_t void_through = 0;           // what steps up to this one drew is dropped: it follows a refused token
  int32_t num_cached_blocks = 0;       // leading blocks that the prefix cache knows
  int32_t cache_parent = kNoBlock;     // the cache's node of the last of them
  std::vector<int32_t> tokens;         // known to the host
  const int32_t index;                 // of the request's n
  std::shared_ptr<TenantShare> share;  // from the first time it waits on
  const StepFacts facts;
  std::vector<int32_t> stop_tokens;   // end it past its minimum length
  std::unique_ptr<TokenGuide> guide;  // from its first draw on, if the request has one
  // Sequences 1.. of the request, until the prompt is computed: they then share its blocks.
  std::vector<std::shared_ptr<Sequence>> siblings;
  uint64_t output_round = 0;  // of the OutputCollector, when output_place was given
  size_t output_place = 0;
  int64_t cached_tokens = 0;  // of the prompt, at first admission
  int64_t preemptions = 0;    // times it had to give its blocks back
  RequestTimes times;

  std::shared_ptr<const Request> request;
  bool admitted = false;                  // has been scheduled before
  std::vector<int32_t> duplicate_blocks;  // referenced because they are nodes in place of own, equal blocks
  TokenHistory history;                   // filled only if the request has penalties
  int64_t rows_returned = 0;              // positions whose logits, hidden state or prompt logprob the caller has

  const SamplingParams& params() const { return request->params; }
  int64_t prompt_len() const { return facts.prompt_len; }
  int64_t num_known() const { return static_cast<int64_t>(tokens.size()) + num_pending; }
  int64_t num_generated() const { return num_known() - prompt_len(); }
  int64_t num_uncomputed() const { return num_known() - num_computed; }
  // All its tokens are sampled, though the host may not have seen the last one.
  bool at_length() const { return num_known() >= facts.max_len; }
};

using SequencePtr = std::shared_ptr<Sequence>;

// Loops over a step's sequences ask for what so many behind the present one touch: by then it is in the cache, where it
// seldom is at the begin of a step.
inline constexpr size_t kPrefetchDistance = 8;
inline void prefetch(const Sequence& sequence) {
  constexpr size_t kCacheLine = 64;
  const auto* bytes = reinterpret_cast<const char*>(&sequence);
  for (size_t offset = 0; offset < offsetof(Sequence, request); offset += kCacheLine)
    __builtin_prefetch(bytes + offset);
}
// What a token is held against and where it goes. The sequence should be in the cache, so at half the distance.
inline void prefetch_token(const Sequence& sequence) {
  __builtin_prefetch(sequence.stop_tokens.data());
  __builtin_prefetch(sequence.tokens.data() + sequence.tokens.size(), 1);
}

// True if a is served before b: by priority, then in order of arrival.
inline bool precedes(const Sequence& a, const Sequence& b) {
  if (a.params().priority != b.params().priority) return a.params().priority > b.params().priority;
  if (a.request->id != b.request->id) return a.request->id < b.request->id;
  return a.index < b.index;
}

}  // namespace turbomind
