// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/kv_cache.h"

#include <algorithm>
#include <span>
#include <utility>

namespace turbomind {
namespace {

// Rows that an earlier computation cannot give back have to be computed again.
bool needs_all_rows(const Sequence& sequence) {
  const SamplingParams& params = sequence.params();
  const bool wanted = params.prompt_logprobs >= 0 || params.output_logits == OutputRows::kAll ||
                      params.output_last_hidden_state == OutputRows::kAll;
  return wanted && sequence.index == 0 && sequence.rows_returned < sequence.prompt_len() - 1;
}

KeyedTokens keyed(const Sequence& sequence, size_t begin, size_t end) {
  const std::span<const int32_t> tokens(sequence.tokens);
  return {tokens.subspan(begin, end - begin), sequence.params().cache_keys, static_cast<int64_t>(begin)};
}

}  // namespace

KvCache::KvCache(int32_t num_blocks, int32_t block_size, bool enable_prefix_caching)
    : blocks_(num_blocks),
      prefix_cache_(blocks_, block_size),
      block_size_(block_size),
      enable_prefix_caching_(enable_prefix_caching) {}

PrefixMatch KvCache::find_prefix(const Sequence& sequence, uint64_t step) const {
  if (!enable_prefix_caching_ || needs_all_rows(sequence)) return {};
  // The last token is always computed: its logits are wanted.
  return prefix_cache_.match(sequence.params().cache_salt, keyed(sequence, 0, sequence.tokens.size() - 1), step);
}

int64_t KvCache::left_after(const Sequence& sequence, const PrefixMatch& match) const {
  const auto is_idle = [&](int32_t block) { return blocks_.ref_count(block) == 0; };
  const int64_t idle = std::count_if(match.blocks.begin(), match.blocks.end(), is_idle);
  const int64_t wanted = blocks_for(sequence.num_known()) - static_cast<int64_t>(match.blocks.size());
  return num_available() - idle - wanted;
}

bool KvCache::fits(const Sequence& sequence, int64_t spare, uint64_t step) const {
  return left_after(sequence, find_prefix(sequence, step)) >= spare;
}

bool KvCache::admit(Sequence& sequence, int64_t spare, uint64_t step) {
  PrefixMatch match = find_prefix(sequence, step);
  const int64_t left = left_after(sequence, match);
  if (left < spare) return false;
  const auto shared = static_cast<int64_t>(match.blocks.size());
  // A copy holds its source for this step.
  if (left < 1) match.partial_block = kNoBlock;
  for (const int32_t block : match.blocks) reference(block);
  if (match.partial_block != kNoBlock) reference(match.partial_block);
  sequence.blocks = std::move(match.blocks);
  while (static_cast<int64_t>(sequence.blocks.size()) < blocks_for(sequence.num_known())) {
    sequence.blocks.push_back(take_block());
  }
  note_change(sequence);
  sequence.num_computed = shared * block_size_;
  sequence.num_cached_blocks = static_cast<int32_t>(shared);
  sequence.cache_parent = shared ? sequence.blocks[static_cast<size_t>(shared) - 1] : kNoBlock;
  if (match.partial_block != kNoBlock) {
    copies_.push_back({match.partial_block, sequence.blocks[static_cast<size_t>(shared)]});
    sequence.num_computed += match.partial_tokens;
  }
  return true;
}

bool KvCache::make_writable(Sequence& sequence) {
  const auto index = static_cast<size_t>(sequence.num_computed / block_size_);
  const int64_t end = (static_cast<int64_t>(index) + 1) * block_size_;
  if (index == sequence.blocks.size()) {
    if (num_available() == 0) return false;
    sequence.blocks.push_back(take_block());
    note_change(sequence);
    sequence.writable_end = end;
    return true;
  }
  const int32_t block = sequence.blocks[index];
  // Sequences that copy the block in this step will have left it before it is written.
  const auto leaves = [&](const BlockCopy& copy) { return copy.source == block; };
  const auto leaving = std::count_if(copies_.begin(), copies_.end(), leaves);
  if (blocks_.ref_count(block) - leaving != 1 || blocks_.is_cached(block)) {
    if (num_available() == 0) return false;
    sequence.blocks[index] = take_block();
    note_change(sequence);
    copies_.push_back({block, sequence.blocks[index]});  // takes over the sequence's reference
  }
  sequence.writable_end = end;
  return true;
}

void KvCache::fork(Sequence& parent, Sequence& child) {
  parent.writable_end = 0;
  child.tokens = parent.tokens;
  child.blocks = parent.blocks;
  note_change(child);
  child.num_computed = parent.num_computed;
  child.num_cached_blocks = parent.num_cached_blocks;
  child.cache_parent = parent.cache_parent;
  child.duplicate_blocks = parent.duplicate_blocks;
  for (const int32_t block : child.blocks) reference(block);
  for (const int32_t block : child.duplicate_blocks) reference(block);
}

void KvCache::enter(Sequence& sequence, uint64_t step) {
  for (int32_t& i = sequence.num_cached_blocks; has_full_block(sequence); ++i) {
    const auto begin = static_cast<size_t>(i) * static_cast<size_t>(block_size_);
    const int32_t own = sequence.blocks[static_cast<size_t>(i)];
    const int32_t entered =
        prefix_cache_.insert(sequence.params().cache_salt, sequence.cache_parent,
                             keyed(sequence, begin, begin + static_cast<size_t>(block_size_)), own, step);
    if (entered != own) {
      // What is built on the other block must not outlive it.
      sequence.duplicate_blocks.push_back(entered);
      reference(entered);
    }
    sequence.cache_parent = entered;
  }
}

void KvCache::release(Sequence& sequence, bool keep, uint64_t step) {
  if (keep && enable_prefix_caching_ && !sequence.blocks.empty()) {
    commit(sequence, step);
    const auto begin = static_cast<size_t>(sequence.num_cached_blocks) * static_cast<size_t>(block_size_);
    const auto end = static_cast<size_t>(std::min(sequence.num_computed, static_cast<int64_t>(sequence.tokens.size())));
    const size_t index = static_cast<size_t>(sequence.num_cached_blocks);
    if (begin < end && !blocks_.is_cached(sequence.blocks[index])) {
      prefix_cache_.insert(sequence.params().cache_salt, sequence.cache_parent, keyed(sequence, begin, end),
                           sequence.blocks[index], step);
    }
  }
  // From the end, so that of idle blocks the ends of sequences are evicted first.
  for (auto it = sequence.blocks.rbegin(); it != sequence.blocks.rend(); ++it) release_block(*it);
  for (const int32_t block : sequence.duplicate_blocks) release_block(block);
  sequence.blocks.clear();
  sequence.duplicate_blocks.clear();
  note_change(sequence);
  sequence.writable_end = 0;
  sequence.num_cached_blocks = 0;
  sequence.cache_parent = kNoBlock;
  sequence.num_computed = 0;
}

std::vector<BlockCopy> KvCache::take_copies() {
  for (const BlockCopy& copy : copies_) release_block(copy.source);
  return std::exchange(copies_, {});
}

int32_t KvCache::take_block() {
  if (blocks_.num_free() == 0) prefix_cache_.evict();
  const int32_t block = blocks_.allocate();
  prefix_cache_.mark_allocated(block);
  return block;
}

void KvCache::reference(int32_t block) {
  if (blocks_.reference(block)) prefix_cache_.mark_referenced(block);
}

void KvCache::release_block(int32_t block) {
  if (blocks_.release(block)) prefix_cache_.mark_idle(block);
}

}  // namespace turbomind
