// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "turbomind/engine/sampling_batch.h"
#include "turbomind/engine/scheduler.h"

namespace turbomind {

// Consecutive token rows of one entry whose logits, hidden states or prompt logprobs go back to the caller.
struct RowGroup {
  int32_t entry = 0;  // index in StepPlan::sequences
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t num_targets = 0;       // leading rows with a prompt token after them: those get logprobs
  int32_t num_top = 0;           // alternatives per logprob
  std::vector<int32_t> targets;  // [num_rows]: that prompt token; 0 where there is none
  bool logits = false;
  bool hidden = false;
  bool generation = false;  // the row a token is drawn from
};

// The rows of a step that tokens are drawn from, each as the only row of a sequence: see tm_step_meta and
// StepInput::wanted.
struct WantedBatch {
  std::vector<int32_t> rows;          // token rows of the step, in order
  std::vector<int32_t> cu_seqlens_q;  // [rows + 1]
  std::vector<int32_t> context_lens;  // [rows]
  std::vector<int32_t> block_table;   // [rows, StepBatch::block_table_stride]
};

// Everything a step needs from the host, the same for every rank.
struct StepBatch {
  int64_t num_tokens = 0;
  int64_t num_seqs = 0;            // with token rows
  std::vector<int32_t> token_ids;  // [num_tokens]; 0 where it is still on the device
  // [num_tokens] each: the token's number, or its positions in time, height and width for ropes with axes.
  std::array<std::vector<int32_t>, 3> positions;
  std::vector<int32_t> pending_rows;  // [tokens sampled by the step before]: the row that takes the token, or -1
  std::vector<int32_t> cu_seqlens_q;  // [num_seqs + 1]
  std::vector<int32_t> context_lens;  // [num_seqs]
  std::vector<int32_t> block_table;   // [num_seqs, block_table_stride]
  int64_t block_table_stride = 0;
  std::vector<BlockCopy> copies;
  std::vector<EncodeJob> encodes;
  std::vector<int32_t> media_rows;    // rows of the embedding buffer that replace token embeddings
  std::vector<int32_t> media_tokens;  // [media_rows.size()]: the token rows they replace
  std::vector<int32_t> spans;         // [n, 3]: sequence, begin, end of positions that see each other
  std::vector<RowGroup> row_groups;
  SamplingBatch sampling;
  WantedBatch wanted;
  bool picks_wanted = false;  // wanted is there: others are not asked for, and leaving them out pays
  bool has_pending = false;
  bool decode_only = false;  // one token row per sequence, each sampled, nothing else wanted: may be replayed
};

// Turns plans into batches; keeps their memory from step to step.
class BatchBuilder {
 public:
  // has_axes: positions are in time, height and width. spans: the tokens of a picture see each other.
  explicit BatchBuilder(int32_t vocab_size, bool has_axes = false, bool spans = false)
      : vocab_size_(vocab_size), has_axes_(has_axes), has_spans_(spans) {}

  // The batch is valid until the next call. Records in each sequence which row its token comes from.
  const StepBatch& build(const StepPlan& plan);
  // What completes the batch, once the tokens of the step before are known; see sampling_batch.h.
  MaskFill fill_masks(const StepPlan& plan, WorkerPool& workers) { return {plan, batch_.sampling, workers}; }
  // The tokens of the step before are lost, and blocks may belong to another KvCache.
  void reset();

 private:
  void clear();
  void add_sequence(const ScheduledSequence& scheduled);
  void add_position(const Sequence& sequence, int64_t index);
  void add_media(const ScheduledSequence& scheduled);
  void add_spans(const ScheduledSequence& scheduled);
  // Rows whose sequence and blocks are those of the step before stay as they are.
  void update_block_table(const StepPlan& plan);
  void pick_wanted();
  // The prompt's rows of this chunk, then the row a token is drawn from.
  void add_row_groups(const ScheduledSequence& scheduled, int32_t entry);
  void add_prompt_rows(const ScheduledSequence& scheduled, int32_t entry);

  int32_t vocab_size_;
  bool has_axes_;
  bool has_spans_;
  int64_t num_sampled_before_ = 0;        // by the step before
  std::vector<int32_t> last_rows_;        // by entry
  std::vector<uint64_t> table_versions_;  // by row of the block table: Sequence::blocks_version of what it holds
  StepBatch batch_;
};

}  // namespace turbomind
