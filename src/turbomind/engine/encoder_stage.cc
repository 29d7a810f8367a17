// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/encoder_stage.h"

#include <algorithm>

#include "turbomind/engine/sequence.h"

namespace turbomind {

void EncoderStage::begin_step(uint64_t step) {
  step_ = step;
  rows_left_ = budget_.rows;
  jobs_.clear();
}

int64_t EncoderStage::plan(const Sequence& sequence, int64_t begin, int64_t count) {
  for (const MediaSpan& span : sequence.request->media.spans) {
    if (span.end() <= begin) continue;
    if (span.begin >= begin + count) break;
    if (budget_.whole_tokens > 0 && span.end() > begin + count) return std::max<int64_t>(0, span.begin - begin);
    if (!provide(span.item)) return std::max<int64_t>(0, span.begin - begin);
  }
  return count;
}

bool EncoderStage::provide(const std::shared_ptr<const EncoderItem>& item) {
  if (cache_.find(item->digest, step_)) return true;
  if (item->num_rows > rows_left_) return false;
  const std::vector<int32_t>* rows = cache_.reserve(item->digest, item->num_tokens, step_);
  if (!rows) return false;
  rows_left_ -= item->num_rows;
  jobs_.push_back({item, *rows});
  ++num_encoded_;
  return true;
}

std::vector<MediaRows> EncoderStage::rows_of(const Sequence& sequence, int64_t begin, int64_t count) {
  std::vector<MediaRows> result;
  for (const MediaSpan& span : sequence.request->media.spans) {
    const int64_t first = std::max(begin, span.begin);
    const int64_t last = std::min(begin + count, span.end());
    if (first >= last) continue;
    const std::vector<int32_t>& rows = *cache_.find(span.item->digest, step_);
    result.push_back({first, {rows.begin() + (first - span.begin), rows.begin() + (last - span.begin)}});
  }
  return result;
}

}  // namespace turbomind
