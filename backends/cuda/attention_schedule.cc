// SPDX-License-Identifier: Apache-2.0
#include "attention_schedule.h"

#include <algorithm>
#include <limits>

namespace turbomind::cuda {
namespace {

constexpr int32_t kNoLimit = std::numeric_limits<int32_t>::max();
constexpr int32_t kMinSplitKeys = 2 * kTileKeys;
constexpr int64_t kBlocksPerSm = 2;   // tiles that run at once on a multiprocessor
constexpr int64_t kItemsPerSlot = 2;  // so that the last ones to run are a small part of all
constexpr int64_t kPartialRowsPerItem = 2;

template <class T>
T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// Largest first: what runs last decides when the call ends.
void sort_by_keys(std::vector<AttentionItem>& items, const StepRows& rows) {
  const auto keys = [&](const AttentionItem& item) {
    const int32_t length = rows.cu_seqlens_q[item.seq + 1] - rows.cu_seqlens_q[item.seq];
    const int32_t end = rows.context_lens[item.seq] - length + item.first + item.positions;
    return std::min(end, item.kv_end) - item.kv_begin;
  };
  std::stable_sort(items.begin(), items.end(),
                   [&](const AttentionItem& a, const AttentionItem& b) { return keys(a) > keys(b); });
}

}  // namespace

AttentionSchedule::AttentionSchedule(const ScheduleLimits& limits)
    : limits_(limits),
      extra_items_(
          limits.deterministic ? 0 : ceil_div<int64_t>(kItemsPerSlot * kBlocksPerSm * limits.num_sms, limits.kv_heads)),
      max_partial_rows_(kPartialRowsPerItem * extra_items_) {}

void AttentionSchedule::update(const StepRows& rows) {
  short_items_.clear();
  for (auto& list : tiles_) list.clear();
  merges_.clear();
  num_partial_rows_ = 0;
  splits_left_ = extra_items_;
  const int32_t split = rows.context_lens ? split_keys(rows) : 0;
  for (int64_t seq = 0; seq < rows.num_seqs; ++seq) {
    if (rows.context_lens && rows.cu_seqlens_q[seq + 1] - rows.cu_seqlens_q[seq] <= kShortRows) {
      add_short(rows, seq, split);
      continue;
    }
    for (size_t i = 0; i < tiles_.size(); ++i) add_tiles(tiles_[i], rows, seq, kTilePositions[i]);
  }
  if (!rows.context_lens) return;
  sort_by_keys(short_items_, rows);
  for (auto& list : tiles_) sort_by_keys(list, rows);
}

// Keys per split, so that the short sequences' items fill the device about kItemsPerSlot times.
int32_t AttentionSchedule::split_keys(const StepRows& rows) const {
  if (limits_.deterministic) return kNoLimit;
  int64_t keys = 0;
  for (int64_t seq = 0; seq < rows.num_seqs; ++seq) {
    if (rows.cu_seqlens_q[seq + 1] - rows.cu_seqlens_q[seq] <= kShortRows) keys += rows.context_lens[seq];
  }
  const int64_t wanted = ceil_div<int64_t>(ceil_div(keys, extra_items_), kTileKeys) * kTileKeys;
  return static_cast<int32_t>(std::max<int64_t>(kMinSplitKeys, wanted));
}

void AttentionSchedule::add_short(const StepRows& rows, int64_t seq, int32_t split_keys) {
  const int32_t first_row = rows.cu_seqlens_q[seq];
  const int32_t length = rows.cu_seqlens_q[seq + 1] - first_row;
  if (length == 0) return;
  const int32_t context = rows.context_lens[seq];
  const int32_t splits = split_keys == kNoLimit ? 1 : ceil_div(context, split_keys);
  const bool fits =
      splits - 1 <= splits_left_ && num_partial_rows_ + static_cast<int64_t>(splits) * length <= max_partial_rows_;
  AttentionItem item{static_cast<int32_t>(seq), 0, length, 0, kNoLimit, -1};
  if (splits == 1 || !fits) {
    short_items_.push_back(item);
    return;
  }
  const auto first_partial = static_cast<int32_t>(num_partial_rows_);
  // Of one length, so that none of a step's items is but a rest.
  const int32_t keys = ceil_div(ceil_div(context, splits), kTileKeys) * kTileKeys;
  for (int32_t split = 0; split < splits; ++split) {
    item.kv_begin = split * keys;
    item.kv_end = split == splits - 1 ? kNoLimit : item.kv_begin + keys;
    item.partial_row = first_partial + split * length;
    short_items_.push_back(item);
  }
  for (int32_t row = 0; row < length; ++row) merges_.push_back({first_row + row, first_partial + row, length, splits});
  splits_left_ -= splits - 1;
  num_partial_rows_ += static_cast<int64_t>(splits) * length;
}

void AttentionSchedule::add_tiles(std::vector<AttentionItem>& tiles, const StepRows& rows, int64_t seq,
                                  int32_t positions) {
  const int32_t length = rows.cu_seqlens_q[seq + 1] - rows.cu_seqlens_q[seq];
  for (int32_t first = 0; first < length; first += positions) {
    tiles.push_back({static_cast<int32_t>(seq), first, std::min(positions, length - first), 0, kNoLimit, -1});
  }
}

}  // namespace turbomind::cuda
