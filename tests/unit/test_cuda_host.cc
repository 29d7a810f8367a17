// SPDX-License-Identifier: Apache-2.0
//
// What the CUDA plug-in computes on the host, without a device: the attention schedule and the KV layout.
#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include "attention_schedule.h"
#include "kernels/kv_layout.h"
#include "support/test.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cuda {
namespace {

struct Step {
  std::vector<int32_t> cu_seqlens_q{0};
  std::vector<int32_t> context_lens;

  void add(int32_t rows, int32_t context) {
    cu_seqlens_q.push_back(cu_seqlens_q.back() + rows);
    context_lens.push_back(context);
  }
  int64_t num_seqs() const { return static_cast<int64_t>(context_lens.size()); }
  int32_t rows(int64_t seq) const {
    const auto at = static_cast<size_t>(seq);
    return cu_seqlens_q[at + 1] - cu_seqlens_q[at];
  }
  StepRows view() const { return {cu_seqlens_q.data(), context_lens.data(), num_seqs()}; }

  // Blocks of 16: the first `shared` of a sequence are those of all sequences with its prefix, the others its own.
  void give_blocks(const std::vector<int32_t>& prefix_of, int32_t shared) {
    constexpr int32_t kStride = 1024;
    block_table.assign(context_lens.size() * kStride, 0);
    int32_t next = 1 << 20;
    for (size_t seq = 0; seq < context_lens.size(); ++seq) {
      for (int32_t i = 0; i < kStride; ++i) {
        block_table[seq * kStride + static_cast<size_t>(i)] = i < shared ? prefix_of[seq] * kStride + i : next++;
      }
    }
  }
  StepRows view_with_blocks() const {
    StepRows rows = view();
    rows.block_table = block_table.data();
    rows.block_table_stride = 1024;
    rows.block_size = 16;
    return rows;
  }

  std::vector<int32_t> block_table;
};

Step random_step(std::mt19937& random, int max_seqs, int max_rows, int max_context) {
  Step step;
  const int seqs = std::uniform_int_distribution<int>(0, max_seqs)(random);
  for (int i = 0; i < seqs; ++i) {
    const bool decode = random() % 2 == 0;
    const int rows = decode ? 1 : std::uniform_int_distribution<int>(0, max_rows)(random);
    step.add(rows, std::max(1, rows) + std::uniform_int_distribution<int>(0, max_context)(random));
  }
  return step;
}

// Keys that each row of a sequence is given by the items, in the order of the splits; fails on overlaps or gaps.
void expect_rows_covered_once(const Step& step, const std::vector<AttentionItem>& items, bool of_short) {
  for (int64_t seq = 0; seq < step.num_seqs(); ++seq) {
    const bool is_short = step.rows(seq) <= kShortRows;
    std::vector<int32_t> next(static_cast<size_t>(step.rows(seq)), 0);
    std::vector<AttentionItem> own;
    for (const AttentionItem& item : items) {
      EXPECT(item.seqs == 1 || item.seqs == item.positions);
      if (item.seq == seq || (item.seqs > 1 && item.seq <= seq && seq < item.seq + item.seqs)) own.push_back(item);
    }
    std::sort(own.begin(), own.end(), [](const auto& a, const auto& b) { return a.kv_begin < b.kv_begin; });
    for (const AttentionItem& item : own) {
      EXPECT(item.positions > 0);
      EXPECT_EQ(item.kv_begin % kTileKeys, 0);
      // Of a shared item the sequence has one row.
      const int32_t rows = item.seqs > 1 ? 1 : item.positions;
      if (item.seqs > 1) EXPECT(item.kv_end < step.context_lens[static_cast<size_t>(seq)]);
      for (int32_t row = item.first; row < item.first + rows; ++row) {
        EXPECT_EQ(next.at(static_cast<size_t>(row)), item.kv_begin);
        next.at(static_cast<size_t>(row)) = item.kv_end;
      }
    }
    for (const int32_t end : next) {
      if (is_short == of_short) EXPECT(end >= step.context_lens[static_cast<size_t>(seq)]);
      if (is_short != of_short) EXPECT_EQ(end, 0);
    }
  }
}

// Every split row has its partial rows for itself, and the merge list names them.
void expect_merges_match(const Step& step, const AttentionSchedule& schedule) {
  std::set<int32_t> written;
  std::set<int32_t> merged;
  for (const AttentionItem& item : schedule.short_items()) {
    for (int32_t row = 0; item.partial_row >= 0 && row < item.positions; ++row) {
      EXPECT(written.insert(item.partial_row + row).second);
    }
  }
  for (const MergeItem& item : schedule.merges()) {
    EXPECT(item.splits > 1 && item.row < step.cu_seqlens_q.back());
    for (int32_t split = 0; split < item.splits; ++split) {
      EXPECT(merged.insert(item.partial_row + split * item.step).second);
    }
  }
  EXPECT(written == merged);
  EXPECT(written.empty() || *written.rbegin() < schedule.max_partial_rows());
}

TEST(cuda_schedule_covers_every_row_and_key_once) {
  std::mt19937 random(7);
  for (const bool deterministic : {false, true}) {
    for (const int32_t kv_heads : {1, 2, 8, 32}) {
      AttentionSchedule schedule({1 << 16, 300, kv_heads, 132, 1, deterministic});
      for (int round = 0; round < 60; ++round) {
        const Step step = random_step(random, round % 3 == 0 ? 300 : 6, 200, round % 2 ? 5000 : 300);
        schedule.update(step.view());
        expect_rows_covered_once(step, schedule.short_items(), true);
        for (size_t i = 0; i < kTilePositions.size(); ++i) expect_rows_covered_once(step, schedule.tiles(i), false);
        expect_merges_match(step, schedule);
      }
    }
  }
}

TEST(cuda_schedule_stays_within_its_capacities) {
  std::mt19937 random(8);
  AttentionSchedule schedule({1 << 16, 256, 8, 132, 1, false});
  for (int round = 0; round < 100; ++round) {
    const Step step = random_step(random, 256, 100, 3000);
    schedule.update(step.view());
    const auto size = [](const auto& list) { return static_cast<int64_t>(list.size()); };
    const int64_t tokens = step.cu_seqlens_q.back();
    const auto most = [&](int64_t positions) {
      return AttentionSchedule::max_tiles(tokens, step.num_seqs(), positions);
    };
    EXPECT(size(schedule.short_items()) <= schedule.max_short_items(step.num_seqs()));
    for (size_t i = 0; i < kTilePositions.size(); ++i) EXPECT(size(schedule.tiles(i)) <= most(kTilePositions[i]));
    EXPECT(size(schedule.merges()) <= schedule.max_merges());
  }
}

// One long context must not be left to a few multiprocessors, and a full batch needs no splits.
TEST(cuda_schedule_splits_where_the_device_would_idle) {
  AttentionSchedule schedule({4096, 256, 8, 132, 1, false});
  Step alone;
  alone.add(1, 8192);
  schedule.update(alone.view());
  EXPECT(schedule.short_items().size() * 8 >= 132u);
  Step batch;
  for (int i = 0; i < 256; ++i) batch.add(1, 600);
  schedule.update(batch.view());
  EXPECT_EQ(schedule.short_items().size(), 256u);
  EXPECT(schedule.merges().empty());
}

TEST(cuda_schedule_does_not_split_when_deterministic) {
  AttentionSchedule schedule({4096, 256, 8, 132, 1, true});
  Step step;
  step.add(1, 100000);
  schedule.update(step.view());
  EXPECT_EQ(schedule.short_items().size(), 1u);
  EXPECT_EQ(schedule.max_partial_rows(), 0);
}

// Whatever is shared, and by how many: all keys once, partial rows of their own, lists within their capacities.
TEST(cuda_schedule_shares_what_sequences_begin_with) {
  std::mt19937 random(9);
  for (const int32_t shared_seqs : {2, 4, 16}) {
    AttentionSchedule schedule({1 << 16, 256, 8, 132, shared_seqs, false});
    bool shared_something = false;
    for (int round = 0; round < 60; ++round) {
      Step step = random_step(random, round % 3 == 0 ? 256 : 12, 40, round % 2 ? 5000 : 700);
      std::vector<int32_t> prefix_of;
      for (int64_t seq = 0; seq < step.num_seqs(); ++seq) {
        prefix_of.push_back(random() % 8 == 0 || seq == 0 ? static_cast<int32_t>(seq) : prefix_of.back());
      }
      step.give_blocks(prefix_of, static_cast<int32_t>(random() % 64));
      schedule.update(step.view_with_blocks());
      expect_rows_covered_once(step, schedule.short_items(), true);
      expect_merges_match(step, schedule);
      EXPECT(static_cast<int64_t>(schedule.short_items().size()) <= schedule.max_short_items(step.num_seqs()));
      EXPECT(static_cast<int64_t>(schedule.merges().size()) <= schedule.max_merges());
      for (const AttentionItem& item : schedule.short_items()) {
        EXPECT(item.seqs <= shared_seqs);
        for (int32_t i = 1; i < item.seqs; ++i) {
          shared_something = true;
          EXPECT_EQ(prefix_of[static_cast<size_t>(item.seq + i)], prefix_of[static_cast<size_t>(item.seq)]);
        }
      }
    }
    EXPECT(shared_something);
  }
}

TEST(cuda_schedule_reads_a_shared_prefix_once_for_four) {
  AttentionSchedule schedule({4096, 256, 8, 132, 4, false});
  Step step;
  for (int i = 0; i < 256; ++i) step.add(1, 2112 + i % 64);
  step.give_blocks(std::vector<int32_t>(256, 0), 128);
  schedule.update(step.view_with_blocks());
  int64_t keys = 0;
  for (const AttentionItem& item : schedule.short_items()) {
    const int32_t context = step.context_lens[static_cast<size_t>(item.seq)];
    keys += std::min(item.kv_end, context) - item.kv_begin;
  }
  EXPECT(keys < 64 * 2048 + 256 * 128);
  AttentionSchedule deterministic({4096, 256, 8, 132, 4, true});
  deterministic.update(step.view_with_blocks());
  EXPECT_EQ(deterministic.short_items().size(), 256u);
  EXPECT(deterministic.merges().empty());
}

tm_kv_spec spec_of(tm_dtype dtype, int32_t dim_k, int32_t dim_v) {
  return {.num_kv_heads = 3, .head_dim_k = dim_k, .head_dim_v = dim_v, .block_size = 32, .dtype = dtype};
}

TEST(cuda_kv_tiles_give_every_byte_its_own_place) {
  for (const int32_t dim : {16, 64, 80, 96, 128, 256}) {
    for (const tm_dtype dtype : {TM_F32, TM_BF16, TM_I8}) {
      const KvTile tile = make_kv_layout(spec_of(dtype, dim, dim)).keys;
      std::set<int64_t> places;
      for (int row = 0; row < tile.rows; ++row) {
        for (int byte = 0; byte < tile.row_bytes; ++byte) places.insert(tile.offset(row, byte));
      }
      EXPECT_EQ(static_cast<int64_t>(places.size()), tile.bytes());
      EXPECT_EQ(*places.begin(), 0);
      EXPECT_EQ(*places.rbegin(), tile.bytes() - 1);
    }
  }
}

// The 128-byte swizzle: the chunk's address bits 4-6 are exclusive-ored with the row's, bits 7-9.
TEST(cuda_kv_tiles_have_the_swizzle_of_shared_memory) {
  const KvTile tile = make_kv_layout(spec_of(TM_BF16, 128, 128)).keys;
  EXPECT(tile.swizzled);
  for (int row = 0; row < tile.rows; ++row) {
    for (int byte = 0; byte < tile.row_bytes; ++byte) {
      const int64_t plain = (byte / 128) * (tile.rows * 128) + row * 128 + byte % 128;
      EXPECT_EQ(tile.offset(row, byte), plain ^ ((plain >> 7 & 7) << 4));
    }
  }
}

TEST(cuda_kv_layout_refuses_what_it_cannot_hold) {
  const auto refused = [](const abi::Error& error) { return error.status() == TM_UNSUPPORTED; };
  const auto expect_refused = [&](const tm_kv_spec& spec, const char* field) {
    test::expect_throws<abi::Error>(__FILE__, __LINE__, [&] { make_kv_layout(spec); }, field, refused);
  };
  expect_refused(spec_of(TM_BF16, 70, 64), "head_dim_k");
  expect_refused(spec_of(TM_BF16, 64, 512), "head_dim_v");
  expect_refused(spec_of(TM_I32, 64, 64), "dtype");
}

}  // namespace
}  // namespace turbomind::cuda
