// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/encoder_stage.h"

#include <algorithm>

#include "turbomind/engine/sequence.h"

namespace turbomind {

void EncoderStage::begin_step() {
  ++step_;
  can_encode_ = !budget_.overlapped || !is_encoding();
  rows_left_ = budget_.rows;
  jobs_.clear();
}

int64_t EncoderStage::plan(const Sequence& sequence, int64_t begin, int64_t count) {
  int64_t allowed = count;
  for (const MediaSpan& span : sequence.request->media.spans) {
    if (span.end() <= begin) continue;
    if (span.begin >= begin + count) break;
    const bool cut = budget_.whole_tokens > 0 && span.end() > begin + count;
    const Provision provision = cut ? Provision::kNoRoom : provide(span.item);
    if (provision != Provision::kThere) allowed = std::min(allowed, std::max<int64_t>(0, span.begin - begin));
    // The pictures behind one that is on its way are encoded with it.
    if (provision == Provision::kNoRoom) break;
  }
  return allowed;
}

EncoderStage::Provision EncoderStage::provide(const std::shared_ptr<const EncoderItem>& item) {
  const Provision unwritten = budget_.overlapped ? Provision::kOnItsWay : Provision::kThere;
  if (const EncoderCache::Entry* entry = cache_.find(item->digest, step_)) {
    return entry->written ? Provision::kThere : unwritten;
  }
  // One item always fits.
  if (!can_encode_ || (!jobs_.empty() && item->num_rows > rows_left_)) return Provision::kNoRoom;
  const EncoderCache::Entry* entry = cache_.reserve(item->digest, item->num_tokens, step_);
  if (!entry) return Provision::kNoRoom;
  rows_left_ -= item->num_rows;
  jobs_.push_back({item, entry->rows});
  ++num_encoded_;
  return unwritten;
}

std::vector<MediaRows> EncoderStage::rows_of(const Sequence& sequence, int64_t begin, int64_t count) {
  std::vector<MediaRows> result;
  for (const MediaSpan& span : sequence.request->media.spans) {
    const int64_t first = std::max(begin, span.begin);
    const int64_t last = std::min(begin + count, span.end());
    if (first >= last) continue;
    const std::vector<int32_t>& rows = cache_.find(span.item->digest, step_)->rows;
    result.push_back({first, {rows.begin() + (first - span.begin), rows.begin() + (last - span.begin)}});
  }
  return result;
}

}  // namespace turbomind
