// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "turbomind/engine/logprob_buffer.h"
#include "turbomind/engine/step_batch.h"
#include "turbomind/engine/upload_buffer.h"
#include "turbomind/models/decoder.h"

namespace turbomind {

// What a RowGroup asked for.
struct GroupRows {
  RowBlock logits;
  RowBlock hidden;
  std::vector<PositionLogprobs> prompt_logprobs;
};

// Brings logits, hidden states and prompt logprobs of a step to the host, in slices of bounded size. Waits for the
// device: few requests ask for this.
class RowReader {
 public:
  RowReader(Decoder& decoder, const Device& device, Stream& stream);

  // hidden: activation dtype [T, hidden_size]. One result per group; without collect, only this rank's part of the
  // work.
  std::vector<GroupRows> read(const Tensor& hidden, const std::vector<RowGroup>& groups, bool collect);

 private:
  void read_slice(const Tensor& hidden, const RowGroup& group, int64_t begin, int64_t count, bool collect,
                  GroupRows& out);
  void read_hidden(const Tensor& rows, RowBlock& out);
  // Appends f32 [rows, cols] device rows.
  void append(const Tensor& rows, RowBlock& out);

  Decoder& decoder_;
  const Device& device_;
  Stream& stream_;
  UploadBuffer upload_;
  LogprobBuffer logprobs_;
  Buffer hidden_f32_;  // [max_logits_rows, hidden_size], where activations are narrower
};

}  // namespace turbomind
