// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "turbomind/core/worker_pool.h"
#include "turbomind/engine/scheduler.h"

namespace turbomind {

// Arguments of logits_process for the first rows of a SamplingBatch, see tm_logits_process_args. A group of arrays is
// empty if no row needs it.
struct LogitsProcessBatch {
  std::vector<float> repetition_penalty;  // [rows]
  std::vector<float> presence_penalty;    // [rows]
  std::vector<float> frequency_penalty;   // [rows]
  std::vector<int32_t> history_offsets;   // [rows + 1]
  std::vector<int32_t> history_ids;
  std::vector<int32_t> history_counts;
  std::vector<int32_t> pending_source;  // [rows]: row among the tokens of the step before, or -1
  std::vector<int32_t> bias_offsets;    // [rows + 1]
  std::vector<int32_t> bias_ids;
  std::vector<float> bias_values;
  std::vector<uint32_t> bitmask;  // [rows, ceil(vocab / 32)]

  void clear();
};

// The rows of a step that draw a token. Rows whose logits are processed come first and rows whose logprobs are wanted
// lie together: [processed | processed, logprobs | logprobs | neither].
struct SamplingBatch {
  std::vector<int32_t> entries;      // [rows]: index in StepPlan::sequences
  std::vector<int32_t> hidden_rows;  // [rows]: token row whose logits are sampled
  std::vector<float> temperature;    // [rows], as below
  std::vector<int32_t> top_k;
  std::vector<float> top_p;
  std::vector<float> min_p;
  std::vector<uint64_t> seed;
  std::vector<int64_t> position;  // of the token being drawn
  int64_t num_processed = 0;
  int64_t logprobs_begin = 0;
  int64_t logprobs_end = 0;
  int32_t num_top = 0;  // alternatives per row, the most any row asks for
  LogitsProcessBatch process;
  std::vector<int32_t> masked;  // rows whose words of process.bitmask depend on the tokens before them
  std::vector<uint8_t> groups;  // while it is built: by entry, which of the four groups its row belongs to

  int64_t rows() const { return static_cast<int64_t>(entries.size()); }
  bool has_logprobs() const { return logprobs_begin < logprobs_end; }
};

// last_rows: [entries of the plan], the token row an entry samples from. Reuses the batch's memory.
void build_sampling_batch(const StepPlan& plan, const std::vector<int32_t>& last_rows, int32_t vocab_size,
                          SamplingBatch& batch);

// Fills in the masks of a batch's masked rows, as their guides or their bad sequences of tokens want it. Workers share
// the rows.
class MaskFill {
 public:
  // plan: the batch's. Both live longer.
  MaskFill(const StepPlan& plan, SamplingBatch& batch, WorkerPool& workers);
  // Ends what was started and not finished, since a step failed in between.
  ~MaskFill();
  MaskFill(const MaskFill&) = delete;
  MaskFill& operator=(const MaskFill&) = delete;

  // Once the tokens before the rows are known: the workers begin, and the caller goes on.
  void start();
  // The caller takes part until all masks are there. Returns what guides threw, by row; such a row draws anything.
  std::vector<std::pair<int32_t, Error>> finish();

 private:
  void fill(size_t index);

  const StepPlan& plan_;
  SamplingBatch& batch_;
  WorkerPool& workers_;
  std::vector<std::optional<Error>> failures_;  // by masked row
  bool started_ = false;
};

}  // namespace turbomind
