// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "turbomind/engine/encoder_runner.h"
#include "turbomind/engine/row_reader.h"
#include "turbomind/engine/sampler.h"
#include "turbomind/engine/step_batch.h"
#include "turbomind/engine/upload_buffer.h"
#include "turbomind/models/decoder.h"

namespace turbomind {

// Runs steps on one rank. Issuing only puts work on the stream; tokens drawn by a step feed the next one on the device,
// so that the host may read them a step later. A step that only decodes is captured at its second run of a padded size
// and replayed from then on, where the backend can.
class ModelRunner {
 public:
  // fetches: this rank's results are read. The decoder has finished loading. encoder: null for a model that takes no
  // pictures.
  ModelRunner(Decoder& decoder, EncoderRunner* encoder, const Device& device, Stream& stream, bool fetches);

  // The copies that a step begins with; by themselves where a plan has nothing else.
  void copy_blocks(const std::vector<BlockCopy>& copies);
  // A step is issued in two parts: all up to the logits, then the draws. In between, a step issued earlier may be
  // collected, for masks that depend on its tokens. The batch may change once the second returns. At most two steps may
  // be issued and not collected.
  std::vector<GroupRows> issue_forward(const StepBatch& batch);
  void issue_sampling(const SamplingBatch& batch);
  // Waits for the oldest step that was issued and not collected. For the rank that fetches.
  SampledTokens collect();
  // After an error: waits until the stream is idle, whatever else goes wrong, and forgets what was on its way.
  void reset();
  // Steps are recorded anew: what is recorded holds the communicator of a group that a failure may have ended.
  void drop_recordings();

  // Device memory of inputs and results, fixed at construction.
  size_t buffer_bytes() const { return inputs_.device_bytes() + sampler_.token_bytes(); }
  // Device memory of sampling beside the above; see Sampler::scratch_bytes().
  size_t sampling_bytes() const { return sampler_.scratch_bytes(); }
  int64_t num_replays() const { return num_replays_; }

 private:
  // A decode step of a padded size: how often it ran, and its recording.
  struct CapturedStep {
    bool ran = false;
    std::vector<Graph> graph;  // none or one
    Tensor hidden{};           // activation dtype [padded, hidden_size]
    Tensor logits{};           // f32 [padded, vocab]
  };

  struct Slot {
    explicit Slot(const Device& device) : done(device) {}
    Event done;
    bool issued = false;
    bool samples = false;
  };

  // Rows a step is padded to for replay; 0 if it runs eagerly.
  int64_t padded_size(const StepBatch& batch) const;
  void upload(const StepBatch& batch, int64_t padded);
  void update_plan(const StepBatch& batch, int64_t padded);
  void update_wanted_plan(const StepBatch& batch);
  void run_eager(const StepBatch& batch, std::vector<GroupRows>& rows);
  void run_captured(CapturedStep& step);
  // False where the backend could not; then steps run eagerly from here on.
  bool capture(CapturedStep& step);
  void abandon_capture();
  void forward(CapturedStep& step);

  // The step's inputs where upload() put them.
  StepInput step_input() const { return {.token_ids = token_ids_, .positions = positions_, .plan = &plan_}; }

  Decoder& decoder_;
  EncoderRunner* encoder_;
  Stream& stream_;
  bool fetches_;
  Plan plan_;
  Plan wanted_plan_;
  UploadBuffer inputs_;
  Sampler sampler_;
  RowReader row_reader_;
  std::array<Slot, Sampler::kSlots> slots_;  // steps on their way take turns
  size_t issue_slot_ = 0;
  size_t collect_slot_ = 0;
  Tensor token_ids_{};     // i32 [padded]
  Tensor positions_{};     // i32 [padded], or [3, padded]
  Tensor media_rows_{};    // i32 [media rows of the step]
  Tensor media_tokens_{};  // likewise
  Tensor pending_rows_{};
  Tensor wanted_rows_{};
  Tensor hidden_{};  // of the step being issued: activation dtype [rows, hidden_size]
  Tensor logits_{};  // f32 [rows, vocab]
  bool can_capture_;
  std::map<int64_t, CapturedStep> captured_;  // by padded size
  int64_t num_replays_ = 0;
};

}  // namespace turbomind
