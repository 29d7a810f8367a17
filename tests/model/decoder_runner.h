// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "model/tiny_model.h"
#include "turbomind/models/decoder.h"

namespace turbomind::test {

// The next tokens of one sequence.
struct Chunk {
  int32_t sequence;
  std::vector<int32_t> tokens;
};

// A loaded decoder on one device, driven step by step. It keeps each sequence's block table; blocks are handed out in
// a scattered order, so that a mistaken table shows.
class DecoderRunner {
 public:
  static constexpr int64_t kMaxTokens = 64;

  // ranks: id and place of this rank's comm; null for one rank.
  struct Ranks {
    CommId id;
    int32_t rank;
    int32_t size;
  };
  DecoderRunner(const Plugin& plugin, const TinyModel& model, const Ranks* ranks = nullptr);

  // Computes the chunks in one step; returns the logits of all their rows. embeddings: replace rows of the step.
  // wanted: StepInput::wanted.
  Rows step(const std::vector<Chunk>& chunks, const std::map<int64_t, Row>& embeddings = {},
            const std::optional<std::vector<int32_t>>& wanted = std::nullopt);
  // Sequence `to` continues from a copy of the blocks of `from`.
  void fork(int32_t from, int32_t to);

  Decoder& decoder() { return *decoder_; }

 private:
  struct SequenceState {
    int32_t length = 0;
    std::vector<int32_t> blocks;
  };

  struct StepArrays;
  StepArrays lay_out(const std::vector<Chunk>& chunks);
  // Updates wanted_plan_ for rows of the step; the rows on the device.
  Tensor want(const StepArrays& step, const std::vector<int32_t>& rows);
  void grow(SequenceState& state, int64_t count);
  Tensor upload(const void* data, DType dtype, std::initializer_list<int64_t> shape);
  Rows download(const Tensor& tensor);

  Device device_;
  Stream stream_;
  std::unique_ptr<Comm> comm_;
  std::unique_ptr<Decoder> decoder_;
  std::optional<Plan> plan_;
  std::optional<Plan> wanted_plan_;
  std::map<int32_t, SequenceState> sequences_;
  std::vector<int32_t> free_blocks_;
  std::vector<Buffer> inputs_;  // of the current step
};

}  // namespace turbomind::test
