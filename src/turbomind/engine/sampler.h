// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <vector>

#include "turbomind/engine/logprob_buffer.h"
#include "turbomind/engine/sampling_batch.h"
#include "turbomind/engine/upload_buffer.h"
#include "turbomind/models/decoder.h"

namespace turbomind {

// The tokens a step drew, in the order of its SamplingBatch.
struct SampledTokens {
  std::vector<int32_t> tokens;
  std::vector<PositionLogprobs> logprobs;  // of rows logprobs_begin .. logprobs_end
};

// From logits to tokens. The tokens stay on the device for the next step, and go to the host as well.
class Sampler {
 public:
  // Rows of one step are at most max_rows.
  Sampler(Decoder& decoder, const Device& device, Stream& stream, int64_t max_rows);

  // Adds the step's arrays to its upload.
  static size_t upload_bytes(int64_t max_rows);
  void upload(UploadBuffer& buffer, const SamplingBatch& batch, int64_t padded_rows);
  // The token rows whose logits are wanted, i32 [padded_rows]; padding names row 0.
  const Tensor& hidden_rows() const { return hidden_rows_; }

  // logits: f32 [rows, vocab], of hidden_rows(); changed. Asynchronous.
  void sample(const Tensor& logits, const SamplingBatch& batch);
  // Sends the tokens just sampled, and their logprobs, to the host, to a place of their own per slot. hidden:
  // activation dtype [T, hidden_size], which the logits come from. Without wanted, only this rank's part of the work.
  static constexpr size_t kSlots = 2;
  void fetch(const Tensor& hidden, const Tensor& logits, const SamplingBatch& batch, size_t slot, bool wanted);
  // What fetch() has sent, once the stream has passed it.
  SampledTokens read(size_t slot) const;

  // i32 [rows]: tokens of the last step, on the device.
  Tensor last_tokens() const;
  // Device memory of the sampled tokens.
  size_t token_bytes() const { return tokens_.bytes(); }
  // Device memory of what turns logits into tokens: op scratch beyond the forward pass's, arguments of logits_process.
  // Long penalty histories make the latter grow.
  size_t scratch_bytes() const { return workspace_growth_ + process_upload_.device_bytes(); }

 private:
  struct Slot {
    Slot(const Device& device, Stream& stream, size_t bytes)
        : tokens(device, bytes, TM_MEMORY_PINNED_HOST), logprobs(device, stream) {}
    Buffer tokens;  // i32 [max_rows]
    LogprobBuffer logprobs;
    int64_t rows = 0;
    int64_t logprobs_begin = 0;
    int64_t logprobs_end = 0;
    int32_t num_top = 0;
  };

  // Issues the largest call of each op that sampling makes.
  void measure(Ops& ops) const;
  void process(const Tensor& logits, const SamplingBatch& batch);

  Decoder& decoder_;
  Stream& stream_;
  int64_t max_rows_;
  UploadBuffer process_upload_;
  Buffer tokens_;  // i32 [max_rows]
  size_t workspace_growth_ = 0;
  int64_t num_last_ = 0;
  std::array<Slot, kSlots> slots_;
  Tensor hidden_rows_{};  // the step's arrays on the device
  Tensor temperature_{};
  Tensor top_k_{};
  Tensor top_p_{};
  Tensor min_p_{};
  Tensor seed_{};
  Tensor position_{};
};

}  // namespace turbomind
