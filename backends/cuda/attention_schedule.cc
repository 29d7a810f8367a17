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
constexpr int32_t kMinSharedKeys = 4 * kTileKeys;  // fewer are not worth a merge

template <class T>
T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

int32_t length_of(const StepRows& rows, int64_t seq) { return rows.cu_seqlens_q[seq + 1] - rows.cu_seqlens_q[seq]; }

bool is_short(const StepRows& rows, int64_t seq) { return rows.context_lens && length_of(rows, seq) <= kShortRows; }

// The length of one of so many parts, a multiple of kTileKeys.
int32_t part_of(int32_t keys, int32_t parts) { return ceil_div(ceil_div(keys, parts), kTileKeys) * kTileKeys; }

// Whole tiles of keys at the begin of two contexts that are the same blocks and before the last position of both.
int32_t common_keys(const StepRows& rows, int64_t a, int64_t b) {
  const int32_t blocks = (std::min(rows.context_lens[a], rows.context_lens[b]) - 1) / rows.block_size;
  const int32_t* first = rows.block_table + a * rows.block_table_stride;
  const int32_t* end = std::mismatch(first, first + blocks, rows.block_table + b * rows.block_table_stride).first;
  return static_cast<int32_t>(end - first) * rows.block_size / kTileKeys * kTileKeys;
}

int32_t num_keys(const AttentionItem& item, const StepRows& rows) {
  const int32_t end = rows.context_lens[item.seq] - length_of(rows, item.seq) + item.first + item.positions;
  return std::min(end, item.kv_end) - item.kv_begin;
}

}  // namespace

void LongestFirst::sort(std::vector<AttentionItem>& items, const StepRows& rows) {
  ranks_.clear();
  for (size_t i = 0; i < items.size(); ++i) {
    // In 64 bits: an item whose rows see none of its keys has a negative number of them, and comes last.
    const int64_t fewer = int64_t{kNoLimit} - num_keys(items[i], rows);
    ranks_.push_back(static_cast<uint64_t>(fewer) << 32 | i);
  }
  if (std::is_sorted(ranks_.begin(), ranks_.end())) return;
  if (!keeps_order()) {
    std::sort(ranks_.begin(), ranks_.end());
    order_.clear();
    for (const uint64_t rank : ranks_) order_.push_back(static_cast<uint32_t>(rank));
  }
  sorted_.clear();
  for (const uint32_t i : order_) sorted_.push_back(items[i]);
  items.swap(sorted_);
}

bool LongestFirst::keeps_order() const {
  const auto before = [this](uint32_t a, uint32_t b) { return ranks_[a] < ranks_[b]; };
  return order_.size() == ranks_.size() && std::is_sorted(order_.begin(), order_.end(), before);
}

AttentionSchedule::AttentionSchedule(const ScheduleLimits& limits)
    : limits_(limits),
      extra_items_(
          limits.deterministic ? 0 : ceil_div<int64_t>(kItemsPerSlot * kBlocksPerSm * limits.num_sms, limits.kv_heads)),
      max_partial_rows_(kPartialRowsPerItem * extra_items_ + (shares() ? 2 * limits.max_seqs : 0)) {}

void AttentionSchedule::update(const StepRows& rows) {
  short_items_.clear();
  for (auto& list : tiles_) list.clear();
  merges_.clear();
  num_partial_rows_ = 0;
  splits_left_ = extra_items_;
  partial_rows_left_ = kPartialRowsPerItem * extra_items_;
  find_groups(rows);
  const int32_t split = split_keys(rows);
  for (const Group& group : groups_) {
    if (group.seqs > 1) {
      add_group(rows, group, split);
    } else {
      add_short(rows, group.seq, split);
    }
  }
  for (int64_t seq = 0; seq < rows.num_seqs; ++seq) {
    if (is_short(rows, seq)) continue;
    for (size_t i = 0; i < tiles_.size(); ++i) add_tiles(tiles_[i], rows, seq, kTilePositions[i]);
  }
  if (!rows.context_lens) return;
  short_order_.sort(short_items_, rows);
  for (size_t i = 0; i < tiles_.size(); ++i) tile_orders_[i].sort(tiles_[i], rows);
}

void AttentionSchedule::find_groups(const StepRows& rows) {
  groups_.clear();
  for (int64_t seq = 0; seq < rows.num_seqs;) {
    if (!is_short(rows, seq)) {
      ++seq;
      continue;
    }
    groups_.push_back(group_from(rows, seq));
    seq += groups_.back().seqs;
  }
}

// The first two decide how much is shared; others join if they share as much.
AttentionSchedule::Group AttentionSchedule::group_from(const StepRows& rows, int64_t seq) const {
  Group group{seq, 1, 0};
  if (!shares() || !rows.block_table || length_of(rows, seq) != 1) return group;
  while (group.seqs < limits_.shared_seqs && seq + group.seqs < rows.num_seqs &&
         length_of(rows, seq + group.seqs) == 1) {
    const int32_t keys = common_keys(rows, seq, seq + group.seqs);
    if (keys < std::max(kMinSharedKeys, group.keys)) break;
    if (group.seqs == 1) group.keys = keys;
    ++group.seqs;
  }
  return group;
}

// Keys per split, so that the short sequences' items fill the device about kItemsPerSlot times.
int32_t AttentionSchedule::split_keys(const StepRows& rows) const {
  if (limits_.deterministic || groups_.empty()) return kNoLimit;
  int64_t keys = 0;
  for (const Group& group : groups_) {
    keys += group.keys;
    for (int32_t i = 0; i < group.seqs; ++i) keys += rows.context_lens[group.seq + i] - group.keys;
  }
  const int64_t wanted = ceil_div<int64_t>(ceil_div(keys, extra_items_), kTileKeys) * kTileKeys;
  return static_cast<int32_t>(std::max<int64_t>(kMinSplitKeys, wanted));
}

bool AttentionSchedule::take(int64_t items, int64_t partial_rows) {
  if (items > splits_left_ || partial_rows > partial_rows_left_) return false;
  splits_left_ -= items;
  partial_rows_left_ -= partial_rows;
  return true;
}

void AttentionSchedule::add_short(const StepRows& rows, int64_t seq, int32_t split_keys) {
  const int32_t first_row = rows.cu_seqlens_q[seq];
  const int32_t length = length_of(rows, seq);
  if (length == 0) return;
  const int32_t context = rows.context_lens[seq];
  const int32_t splits = split_keys == kNoLimit ? 1 : ceil_div(context, split_keys);
  AttentionItem item{static_cast<int32_t>(seq), 0, length, 0, kNoLimit, -1, 1};
  if (splits == 1 || !take(splits - 1, static_cast<int64_t>(splits) * length)) {
    short_items_.push_back(item);
    return;
  }
  const auto first_partial = static_cast<int32_t>(num_partial_rows_);
  // Of one length, so that none of a step's items is but a rest.
  const int32_t keys = part_of(context, splits);
  for (int32_t split = 0; split < splits; ++split) {
    item.kv_begin = split * keys;
    item.kv_end = split == splits - 1 ? kNoLimit : item.kv_begin + keys;
    item.partial_row = first_partial + split * length;
    short_items_.push_back(item);
  }
  for (int32_t row = 0; row < length; ++row) merges_.push_back({first_row + row, first_partial + row, length, splits});
  num_partial_rows_ += static_cast<int64_t>(splits) * length;
}

// Splits of what is shared, each with a row of every sequence; then as many splits of each one's own keys, of which
// some may be empty.
void AttentionSchedule::add_group(const StepRows& rows, const Group& group, int32_t split_keys) {
  const int32_t n = group.seqs;
  int32_t longest = 0;
  for (int32_t i = 0; i < n; ++i) longest = std::max(longest, rows.context_lens[group.seq + i] - group.keys);
  int32_t shared_splits = ceil_div(group.keys, split_keys);
  int32_t own_splits = ceil_div(longest, split_keys);
  if (!take(shared_splits - 1 + n * (own_splits - 1), n * (shared_splits + own_splits - 2))) {
    shared_splits = 1;
    own_splits = 1;
  }
  const auto first_partial = static_cast<int32_t>(num_partial_rows_);
  const int32_t shared_part = part_of(group.keys, shared_splits);
  for (int32_t split = 0; split < shared_splits; ++split) {
    const int32_t begin = std::min(split * shared_part, group.keys);
    short_items_.push_back({static_cast<int32_t>(group.seq), 0, n, begin, std::min(begin + shared_part, group.keys),
                            first_partial + split * n, n});
  }
  for (int32_t i = 0; i < n; ++i) {
    const int64_t seq = group.seq + i;
    const int32_t part = part_of(rows.context_lens[seq] - group.keys, own_splits);
    for (int32_t split = 0; split < own_splits; ++split) {
      const int32_t begin = group.keys + split * part;
      short_items_.push_back({static_cast<int32_t>(seq), 0, 1, begin, split == own_splits - 1 ? kNoLimit : begin + part,
                              first_partial + (shared_splits + split) * n + i, 1});
    }
    merges_.push_back({rows.cu_seqlens_q[seq], first_partial + i, n, shared_splits + own_splits});
  }
  num_partial_rows_ += static_cast<int64_t>(n) * (shared_splits + own_splits);
}

void AttentionSchedule::add_tiles(std::vector<AttentionItem>& tiles, const StepRows& rows, int64_t seq,
                                  int32_t positions) {
  const int32_t length = length_of(rows, seq);
  for (int32_t first = 0; first < length; first += positions) {
    tiles.push_back({static_cast<int32_t>(seq), first, std::min(positions, length - first), 0, kNoLimit, -1, 1});
  }
}

}  // namespace turbomind::cuda
