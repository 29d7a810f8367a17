// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "turbomind/engine/request.h"
#include "turbomind/ops/ops.h"

namespace turbomind {

// Computes logprobs and brings them to the host.
class LogprobBuffer {
 public:
  LogprobBuffer(const Device& device, Stream& stream) : device_(device), stream_(stream) {}

  // logits: f32 [R, vocab]; ids: i32 [R], the tokens to report. Asynchronous.
  void issue(Ops& ops, const Tensor& logits, const Tensor& ids, int32_t num_top);
  // Once the stream has passed issue(): row i, of token token_id, with at most num_top alternatives.
  PositionLogprobs row(int64_t i, int32_t token_id, int32_t num_top) const;

 private:
  // Views of the four result arrays in a buffer.
  struct Layout {
    Tensor logprobs;      // f32 [R]
    Tensor ranks;         // i32 [R]
    Tensor top_logprobs;  // f32 [R, n]
    Tensor top_ids;       // i32 [R, n]
  };
  Layout layout(void* data) const;
  size_t bytes() const { return static_cast<size_t>(rows_ * (2 + 2 * num_top_)) * sizeof(float); }
  void reserve();

  const Device& device_;
  Stream& stream_;
  Buffer device_buffer_;
  Buffer host_buffer_;
  int64_t rows_ = 0;
  int64_t num_top_ = 0;
};

}  // namespace turbomind
