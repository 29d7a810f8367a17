// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include "support/test.h"
#include "turbomind/engine/kv_cache.h"

namespace turbomind::test {
namespace {

constexpr int32_t kBlockSize = 4;

SequencePtr make_sequence(std::vector<int32_t> tokens, const std::string& salt = "", std::vector<CacheKey> keys = {}) {
  static uint64_t last_id = 0;
  auto request = std::make_shared<Request>();
  request->id = ++last_id;
  request->prompt = std::move(tokens);
  request->params.cache_salt = salt;
  request->params.cache_keys = std::move(keys);
  request->max_len = 1000;
  return std::make_shared<Sequence>(request, 0);
}

std::vector<int32_t> iota(int32_t count, int32_t first = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Computes all of a sequence in one step and ends it.
void serve(KvCache& cache, const SequencePtr& sequence, uint64_t step) {
  EXPECT(cache.admit(*sequence, 0, step));
  cache.take_copies();
  sequence->num_computed = sequence->num_known();
  cache.commit(*sequence, step);
  cache.release(*sequence, true, step);
}

int64_t matched(KvCache& cache, std::vector<int32_t> tokens, uint64_t step, const std::string& salt = "") {
  const SequencePtr sequence = make_sequence(std::move(tokens), salt);
  EXPECT(cache.admit(*sequence, 0, step));
  cache.take_copies();
  const int64_t computed = sequence->num_computed;
  cache.release(*sequence, false, step);
  return computed;
}

int32_t used(const KvCache& cache) {
  const BlockManager& blocks = cache.blocks();
  return blocks.num_blocks() - blocks.num_free() - blocks.num_idle();
}

TEST(block_manager_counts_references) {
  BlockManager blocks(2);
  const int32_t a = blocks.allocate();
  EXPECT_EQ(a, 0);
  EXPECT(!blocks.reference(a));
  EXPECT(!blocks.release(a));
  EXPECT_EQ(blocks.num_free(), 1);
  EXPECT(!blocks.release(a));
  EXPECT_EQ(blocks.num_free(), 2);
}

TEST(block_manager_keeps_cached_blocks_idle) {
  BlockManager blocks(1);
  const int32_t a = blocks.allocate();
  blocks.set_cached(a, true);
  EXPECT(blocks.release(a));
  EXPECT_EQ(blocks.num_idle(), 1);
  EXPECT_EQ(blocks.allocate(), kNoBlock);
  EXPECT(blocks.reference(a));
  EXPECT(blocks.release(a));
  blocks.set_cached(a, false);
  EXPECT_EQ(blocks.num_idle(), 0);
  EXPECT_EQ(blocks.allocate(), a);
}

TEST(prefix_of_full_blocks_is_shared) {
  KvCache cache(16, kBlockSize, true);
  const SequencePtr first = make_sequence(iota(10));
  EXPECT(cache.admit(*first, 0, 1));
  first->num_computed = 10;
  cache.commit(*first, 1);
  const SequencePtr second = make_sequence(iota(12));
  EXPECT(cache.admit(*second, 0, 1));
  EXPECT_EQ(second->num_computed, 8);
  EXPECT_EQ(second->blocks[0], first->blocks[0]);
  EXPECT_EQ(second->blocks[1], first->blocks[1]);
  EXPECT(second->blocks[2] != first->blocks[2]);
  EXPECT(cache.take_copies().empty());
}

// The only time that was counted.
void expect_only(const SecondsHistogram& times, double seconds) {
  EXPECT_NEAR(times.sum(), seconds, 1e-9);
  for (size_t i = 0; i < times.counts().size(); ++i) {
    const bool above = i == 0 || seconds > SecondsHistogram::kEdges[i - 1];
    const bool within = i == SecondsHistogram::kEdges.size() || seconds <= SecondsHistogram::kEdges[i];
    EXPECT_EQ(times.counts()[i], above && within);
  }
}

TEST(ages_of_blocks_are_told_when_they_are_used_again_or_evicted) {
  KvCache cache(2, kBlockSize, true);
  const BlockAges& ages = cache.prefix_cache().ages();
  cache.set_time(100);
  serve(cache, make_sequence(iota(4)), 1);
  cache.set_time(103);
  EXPECT_EQ(matched(cache, iota(5), 2), 4);
  expect_only(ages.reuse, 3);
  EXPECT_EQ(ages.lifetime.sum(), 0.0);
  cache.set_time(5100);
  serve(cache, make_sequence(iota(8, 50)), 3);  // takes both blocks
  expect_only(ages.lifetime, 5000);
  expect_only(ages.idle, 4997);
  expect_only(ages.reuse, 3);
  BlockAges twice = ages;
  twice += ages;
  EXPECT_NEAR(twice.lifetime.sum(), 10000, 1e-9);
  EXPECT_EQ(twice.idle.counts().back(), 2);
}

TEST(last_token_is_always_computed) {
  KvCache cache(16, kBlockSize, true);
  serve(cache, make_sequence(iota(8)), 1);
  EXPECT_EQ(matched(cache, iota(8), 2), 7);
  EXPECT_EQ(matched(cache, iota(9), 2), 8);
  EXPECT_EQ(matched(cache, iota(1), 2), 0);
}

TEST(part_of_a_block_is_copied) {
  KvCache cache(16, kBlockSize, true);
  serve(cache, make_sequence({1, 2, 3, 4, 5, 6, 7, 8}), 1);
  const SequencePtr sequence = make_sequence({1, 2, 3, 4, 5, 6, 9, 9, 9});
  EXPECT(cache.admit(*sequence, 0, 2));
  EXPECT_EQ(sequence->num_computed, 6);
  const std::vector<BlockCopy> copies = cache.take_copies();
  EXPECT_EQ(copies.size(), 1U);
  EXPECT_EQ(copies[0].destination, sequence->blocks[1]);
  EXPECT(copies[0].source != copies[0].destination);
  // The source is idle again once the copies are on their way.
  EXPECT_EQ(used(cache), 3);
}

TEST(longest_common_part_is_found_on_either_side) {
  KvCache cache(16, kBlockSize, true);
  serve(cache, make_sequence({1, 5, 0, 0, 1}), 1);
  serve(cache, make_sequence({1, 5, 7, 9, 1}), 1);
  serve(cache, make_sequence({2, 0, 0, 0, 1}), 1);
  EXPECT_EQ(matched(cache, {1, 5, 7, 0, 3}, 2), 3);
  EXPECT_EQ(matched(cache, {1, 5, 7, 10, 3}, 2), 3);
  EXPECT_EQ(matched(cache, {1, 5, 0, 9, 3}, 2), 3);
  EXPECT_EQ(matched(cache, {1, 9, 0, 9, 3}, 2), 1);
  EXPECT_EQ(matched(cache, {0, 9, 0, 9, 3}, 2), 0);
}

TEST(blocks_of_the_same_step_are_shared_but_not_copied) {
  KvCache cache(16, kBlockSize, true);
  serve(cache, make_sequence(iota(8)), 1);
  EXPECT_EQ(matched(cache, iota(7), 1), 4);
  EXPECT_EQ(matched(cache, iota(7), 2), 6);
}

TEST(end_of_a_sequence_is_reused_by_the_next_turn) {
  KvCache cache(16, kBlockSize, true);
  serve(cache, make_sequence(iota(6)), 1);
  EXPECT_EQ(matched(cache, iota(20), 2), 6);
  // The longer block takes the place of the part.
  serve(cache, make_sequence(iota(8)), 2);
  EXPECT_EQ(cache.blocks().num_idle(), 2);
}

TEST(tenants_do_not_share) {
  KvCache cache(16, kBlockSize, true);
  serve(cache, make_sequence(iota(8), "a"), 1);
  EXPECT_EQ(matched(cache, iota(9), 2, "b"), 0);
  EXPECT_EQ(matched(cache, iota(9), 2, "a"), 8);
}

TEST(keys_are_found_among_equal_tokens) {
  KvCache cache(64, kBlockSize, true);
  // One placeholder token throughout: only the keys tell these apart.
  const std::vector<int32_t> tokens(8, 7);
  const std::vector<std::string> pictures = {"d", "a", "c", "e", "b"};
  for (const std::string& picture : pictures) serve(cache, make_sequence(tokens, "", {{2, 8, picture}}), 1);
  for (const std::string& picture : pictures) {
    const SequencePtr sequence = make_sequence(tokens, "", {{2, 8, picture}});
    EXPECT(cache.admit(*sequence, 0, 2));
    EXPECT_EQ(sequence->num_computed, 7);
    cache.take_copies();
    cache.release(*sequence, false, 2);
  }
  const SequencePtr other = make_sequence(tokens, "", {{2, 8, "f"}});
  EXPECT(cache.admit(*other, 0, 2));
  EXPECT_EQ(other->num_computed, 2);
}

TEST(caching_can_be_off) {
  KvCache cache(16, kBlockSize, false);
  serve(cache, make_sequence(iota(8)), 1);
  EXPECT_EQ(matched(cache, iota(9), 2), 0);
  EXPECT_EQ(cache.blocks().num_free(), 16);
}

TEST(least_recently_used_leaves_are_evicted_first) {
  KvCache cache(4, kBlockSize, true);
  serve(cache, make_sequence(iota(8, 0)), 1);
  serve(cache, make_sequence(iota(8, 100)), 2);
  EXPECT_EQ(matched(cache, iota(9, 0), 3), 8);  // takes the last block of the other
  EXPECT_EQ(matched(cache, iota(9, 100), 4), 4);
  EXPECT(cache.prefix_cache().ages().lifetime.counts()[0] > 0);
}

TEST(parent_outlives_its_children) {
  KvCache cache(6, kBlockSize, true);
  serve(cache, make_sequence(iota(16)), 1);
  const SequencePtr other = make_sequence(iota(12, 500));
  EXPECT(cache.admit(*other, 0, 2));
  cache.release(*other, false, 2);
  // One block of four was evicted: the last.
  EXPECT_EQ(matched(cache, iota(13), 3), 12);
}

TEST(referenced_blocks_are_not_evicted) {
  KvCache cache(4, kBlockSize, true);
  const SequencePtr running = make_sequence(iota(12));
  EXPECT(cache.admit(*running, 0, 1));
  running->num_computed = 12;
  cache.commit(*running, 1);
  EXPECT(!cache.admit(*make_sequence(iota(8, 100)), 0, 1));
  EXPECT(cache.admit(*make_sequence(iota(4, 100)), 0, 1));
}

TEST(admission_leaves_spare_blocks) {
  KvCache cache(4, kBlockSize, true);
  EXPECT(!cache.admit(*make_sequence(iota(12)), 2, 1));
  EXPECT_EQ(cache.blocks().num_free(), 4);
  EXPECT(cache.admit(*make_sequence(iota(12)), 1, 1));
}

TEST(forks_copy_a_shared_block_before_they_write) {
  KvCache cache(16, kBlockSize, true);
  const SequencePtr parent = make_sequence(iota(6));
  EXPECT(cache.admit(*parent, 0, 1));
  parent->num_computed = 6;
  cache.commit(*parent, 1);
  const SequencePtr child = make_sequence({});
  cache.fork(*parent, *child);
  EXPECT_EQ(child->num_computed, 6);
  EXPECT_EQ(used(cache), 2);
  EXPECT(cache.grow(*parent));
  EXPECT(parent->blocks[1] != child->blocks[1]);
  EXPECT_EQ(parent->blocks[0], child->blocks[0]);
  EXPECT_EQ(cache.take_copies().size(), 1U);
  // The last owner writes in place.
  EXPECT(cache.grow(*child));
  EXPECT(cache.take_copies().empty());
  EXPECT_EQ(used(cache), 3);
}

TEST(growing_fails_without_change_when_blocks_are_out) {
  KvCache cache(2, kBlockSize, true);
  const SequencePtr sequence = make_sequence(iota(8));
  EXPECT(cache.admit(*sequence, 0, 1));
  sequence->num_computed = 8;
  sequence->tokens.push_back(8);
  EXPECT(!cache.grow(*sequence));
  EXPECT_EQ(sequence->blocks.size(), 2U);
}

TEST(equal_blocks_computed_twice_keep_what_is_built_on_them) {
  KvCache cache(16, kBlockSize, true);
  const SequencePtr a = make_sequence(iota(8));
  const SequencePtr b = make_sequence(iota(8));
  EXPECT(cache.admit(*a, 0, 1));
  EXPECT(cache.admit(*b, 0, 1));
  a->num_computed = b->num_computed = 8;
  cache.commit(*a, 1);
  cache.commit(*b, 1);
  EXPECT_EQ(b->duplicate_blocks.size(), 2U);
  cache.release(*a, true, 1);
  cache.release(*b, true, 1);
  EXPECT_EQ(used(cache), 0);
  EXPECT_EQ(cache.blocks().num_idle(), 2);
}

TEST(failed_step_is_forgotten) {
  KvCache cache(16, kBlockSize, true);
  serve(cache, make_sequence(iota(8)), 1);
  const SequencePtr sequence = make_sequence(iota(16));
  EXPECT(cache.admit(*sequence, 0, 2));
  sequence->num_computed = 16;
  cache.commit(*sequence, 2);
  cache.release(*sequence, false, 2);
  cache.discard(2);
  EXPECT_EQ(matched(cache, iota(17), 3), 8);
  EXPECT_EQ(cache.blocks().num_free() + cache.blocks().num_idle(), 16);
}

}  // namespace
}  // namespace turbomind::test
