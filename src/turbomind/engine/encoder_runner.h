// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "turbomind/engine/encoder_stage.h"
#include "turbomind/runtime/input_buffer.h"
#include "vision/encoder/encoder.h"

namespace turbomind {

// Runs encode jobs on one rank, on a stream of the encoder's own, and keeps the embeddings they give.
class EncoderRunner {
 public:
  // stream: the encoder's. max_tokens: of one step of the decoder. The encoder has finished loading.
  EncoderRunner(Encoder& encoder, const Device& device, Stream& stream, const EncoderBudget& budget,
                int64_t max_tokens);

  // Issues the jobs; their items' memory may go once it returns. Rows that gather() was told to read before are
  // written after it has read them.
  void encode(const std::vector<EncodeJob>& jobs);
  // All jobs are done; throws what went wrong with them.
  bool is_done() { return done_.reached(); }
  // The embeddings in these rows of the buffer: activation dtype [M, width], valid until the next call. They have been
  // written, or are by work that streams of this device run before what is issued now. rows: i32 [M] on the device.
  Tensor gather(Ops& ops, Stream& stream, const Tensor& rows);
  // After an error: waits until the encoder's stream is idle.
  void reset() { stream_.settle(); }

  // Device bytes of the embeddings.
  size_t buffer_bytes() const {
    return cache_.bytes() + gathered_.bytes() + targets_.device_bytes() + workspace_.bytes();
  }

 private:
  Encoder& encoder_;
  Stream& stream_;
  Workspace workspace_;
  Ops ops_;
  InputBuffer targets_;
  Buffer cache_;
  Buffer gathered_;
  Tensor cache_rows_{};  // activation dtype [cache_rows, width]
  Event done_;           // the last jobs
  Event read_;           // the last gather
  bool was_read_ = false;
};

}  // namespace turbomind
