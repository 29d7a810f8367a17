// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "turbomind/engine/encoder_cache.h"
#include "turbomind/engine/media.h"

namespace turbomind {

struct Sequence;

// An item to encode, and the rows of the embedding buffer that take its tokens.
struct EncodeJob {
  std::shared_ptr<const EncoderItem> item;
  std::vector<int32_t> rows;
};

// Tokens [begin, begin + rows.size()) of a sequence read these rows of the embedding buffer.
struct MediaRows {
  int64_t begin = 0;
  std::vector<int32_t> rows;
};

// Plans what the encoder does: pictures are encoded when the first of their tokens is to be computed, within a budget
// of patches of its own, and their embeddings are kept by content for as long as there is room. Where the encoder works
// beside the decoder, a picture's tokens wait until it is done, and one batch is encoded at a time; else it works at
// the start of the step that reads what it writes. The first sequence of a step finds all of the budget, so that
// pictures never stop progress. Owned by the engine thread.
class EncoderStage {
 public:
  explicit EncoderStage(const EncoderBudget& budget) : budget_(budget), cache_(budget.cache_rows) {}

  void begin_step();
  // From here on the step has sequences that decode, and would be held up by what is encoded in it.
  void spare_decodes() { rows_left_ = std::min(rows_left_, budget_.rows_beside_decodes); }
  // How many of the next count tokens from begin on the step can compute: all, or those before the first picture that
  // has to wait, be it for the encoder, patches, embeddings or, with whole_tokens, all of its tokens. What they need is
  // planned.
  int64_t plan(const Sequence& sequence, int64_t begin, int64_t count);
  // What plan() asked for since begin_step().
  std::vector<EncodeJob> take_jobs() { return std::exchange(jobs_, {}); }
  // The rows that tokens [begin, begin + count) read, which plan() has allowed.
  std::vector<MediaRows> rows_of(const Sequence& sequence, int64_t begin, int64_t count);

  // True from the plan of an encode until one of the next two.
  bool is_encoding() const { return cache_.has_unwritten(); }
  // The encoder is done with all jobs.
  void settle() { cache_.settle(); }
  // What the encoder was to write is lost, planned or on its way. Returns the digests.
  std::vector<std::string> discard() { return cache_.discard(); }

  int64_t num_encoded() const { return num_encoded_; }
  int64_t num_cached_rows() const { return cache_.num_rows_used(); }

 private:
  enum class Provision { kThere, kOnItsWay, kNoRoom };

  Provision provide(const std::shared_ptr<const EncoderItem>& item);

  const EncoderBudget budget_;
  EncoderCache cache_;
  uint64_t step_ = 0;        // being planned, those that came to nothing counted, too
  bool can_encode_ = false;  // in this step
  int64_t rows_left_ = 0;    // patches
  std::vector<EncodeJob> jobs_;
  int64_t num_encoded_ = 0;  // items
};

}  // namespace turbomind
