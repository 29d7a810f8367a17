// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "turbomind/engine/encoder_stage.h"
#include "turbomind/runtime/input_buffer.h"
#include "vision/encoder/encoder.h"

namespace turbomind {

// Runs encode jobs on one rank and keeps the embeddings they give.
class EncoderRunner {
 public:
  // max_tokens: of one step of the decoder. The encoder has finished loading.
  EncoderRunner(Encoder& encoder, const Device& device, Stream& stream, const EncoderBudget& budget,
                int64_t max_tokens);

  // Issues the jobs; their items' memory may go once it returns.
  void encode(const std::vector<EncodeJob>& jobs);
  // The embeddings in these rows of the buffer: activation dtype [M, width], valid until the next call. rows: i32 [M]
  // on the device.
  Tensor gather(Ops& ops, const Tensor& rows);

  // Device bytes of the embeddings.
  size_t buffer_bytes() const { return cache_.bytes() + gathered_.bytes() + targets_.device_bytes(); }

 private:
  Encoder& encoder_;
  Workspace workspace_;
  Ops ops_;
  InputBuffer targets_;
  Buffer cache_;
  Buffer gathered_;
  Tensor cache_rows_{};  // activation dtype [cache_rows, width]
};

}  // namespace turbomind
