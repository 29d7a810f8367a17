// SPDX-License-Identifier: Apache-2.0
//
// Cuts a step's query rows into the work lists of the attention kernels. Pure host code: no CUDA call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/attention_items.h"

namespace turbomind::cuda {

// Sequences of at most so many rows are one item per split of their context; longer ones are cut into tiles of rows.
inline constexpr int kShortRows = 16;
// Query positions per item of the lists of longer sequences.
inline constexpr std::array kTilePositions{16, 32, 64, 128};

struct ScheduleLimits {
  int64_t max_tokens;
  int64_t max_seqs;
  int32_t kv_heads;  // the fewest of the model's attention shapes
  int32_t num_sms;
  int32_t shared_seqs;  // most sequences whose rows one item may hold; 1: nothing is shared
  bool deterministic;   // contexts are not split, nor is anything shared
};

struct StepRows {
  const int32_t* cu_seqlens_q;  // [num_seqs + 1]
  const int32_t* context_lens;  // [num_seqs]; nullptr: attention_dense, where every sequence is cut into tiles
  int64_t num_seqs;
  const int32_t* block_table = nullptr;  // [num_seqs, block_table_stride]; nullptr: nothing is shared
  int64_t block_table_stride = 0;
  int32_t block_size = 0;
};

// Puts items with the most keys first, equal ones in their order: what runs last decides when the call ends.
class LongestFirst {
 public:
  void sort(std::vector<AttentionItem>& items, const StepRows& rows);

 private:
  // Sequences that all grow by a token keep their order, so the one found last is tried before sorting.
  bool keeps_order() const;

  std::vector<uint64_t> ranks_;  // by item: fewer for more keys, then for an earlier place
  std::vector<uint32_t> order_;  // places of the items, longest first
  std::vector<AttentionItem> sorted_;
};

class AttentionSchedule {
 public:
  explicit AttentionSchedule(const ScheduleLimits& limits);

  void update(const StepRows& rows);

  // Most entries that a list may have in a step of so many (padded) sequences and tokens.
  int64_t max_short_items(int64_t seqs) const { return seqs + extra_items_ + (shares() ? seqs / 2 : 0); }
  static int64_t max_tiles(int64_t tokens, int64_t seqs, int64_t positions) { return tokens / positions + seqs; }
  int64_t max_merges() const { return limits_.deterministic ? 0 : max_partial_rows_; }
  int64_t max_partial_rows() const { return limits_.deterministic ? 0 : max_partial_rows_; }

  const std::vector<AttentionItem>& short_items() const { return short_items_; }
  // Of kTilePositions[list] query positions.
  const std::vector<AttentionItem>& tiles(size_t list) const { return tiles_[list]; }
  const std::vector<MergeItem>& merges() const { return merges_; }
  int64_t num_partial_rows() const { return num_partial_rows_; }

 private:
  // Sequences in order, and the keys at the begin of their contexts that are the same blocks.
  struct Group {
    int64_t seq;
    int32_t seqs;
    int32_t keys;  // a multiple of kTileKeys; 0: a sequence by itself
  };

  bool shares() const { return limits_.shared_seqs > 1 && !limits_.deterministic; }
  void find_groups(const StepRows& rows);
  Group group_from(const StepRows& rows, int64_t seq) const;
  int32_t split_keys(const StepRows& rows) const;
  bool take(int64_t items, int64_t partial_rows);
  void add_short(const StepRows& rows, int64_t seq, int32_t split_keys);
  void add_group(const StepRows& rows, const Group& group, int32_t split_keys);
  static void add_tiles(std::vector<AttentionItem>& tiles, const StepRows& rows, int64_t seq, int32_t positions);

  ScheduleLimits limits_;
  int64_t extra_items_;
  int64_t max_partial_rows_;
  int64_t num_partial_rows_ = 0;
  int64_t splits_left_ = 0;        // items beyond one per sequence and one per group
  int64_t partial_rows_left_ = 0;  // beyond two per sequence of a group
  std::vector<Group> groups_;      // of the short sequences
  std::vector<AttentionItem> short_items_;
  LongestFirst short_order_;
  std::array<std::vector<AttentionItem>, kTilePositions.size()> tiles_;
  std::array<LongestFirst, kTilePositions.size()> tile_orders_;
  std::vector<MergeItem> merges_;
};

}  // namespace turbomind::cuda
