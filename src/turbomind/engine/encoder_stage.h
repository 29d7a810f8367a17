// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "turbomind/engine/encoder_cache.h"
#include "turbomind/engine/media.h"

namespace turbomind {

struct Sequence;

// An item to encode at the start of a step, and the rows of the embedding buffer that take its tokens.
struct EncodeJob {
  std::shared_ptr<const EncoderItem> item;
  std::vector<int32_t> rows;
};

// Tokens [begin, begin + rows.size()) of a sequence read these rows of the embedding buffer.
struct MediaRows {
  int64_t begin = 0;
  std::vector<int32_t> rows;
};

// Plans what the encoder does in a step: pictures are encoded when the first of their tokens is computed, within a
// budget of patches of its own, and their embeddings are kept by content for as long as there is room. The first
// sequence of a step finds all of it, so that pictures never stop progress. Owned by the engine thread.
class EncoderStage {
 public:
  explicit EncoderStage(const EncoderBudget& budget) : budget_(budget), cache_(budget.cache_rows) {}

  void begin_step(uint64_t step);
  // How many of the next count tokens from begin on the step can compute: all, or those before the first picture that
  // has to wait, be it for patches, embeddings or, with whole_tokens, all of its tokens. What they need is planned.
  int64_t plan(const Sequence& sequence, int64_t begin, int64_t count);
  // What plan() asked for since begin_step().
  std::vector<EncodeJob> take_jobs() { return std::exchange(jobs_, {}); }
  // The rows that tokens [begin, begin + count) read, which plan() has allowed.
  std::vector<MediaRows> rows_of(const Sequence& sequence, int64_t begin, int64_t count);
  void discard(uint64_t step) { cache_.discard(step); }

  int64_t num_encoded() const { return num_encoded_; }
  int64_t num_cached_rows() const { return cache_.num_rows_used(); }

 private:
  bool provide(const std::shared_ptr<const EncoderItem>& item);

  const EncoderBudget budget_;
  EncoderCache cache_;
  uint64_t step_ = 0;
  int64_t rows_left_ = 0;  // patches
  std::vector<EncodeJob> jobs_;
  int64_t num_encoded_ = 0;  // items
};

}  // namespace turbomind
