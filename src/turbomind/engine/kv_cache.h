// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "turbomind/engine/block_manager.h"
#include "turbomind/engine/prefix_cache.h"
#include "turbomind/engine/sequence.h"

namespace turbomind {

// A copy of one block, made in every layer before the step runs. Pairs as Decoder::copy_kv_blocks takes them.
struct BlockCopy {
  int32_t source;
  int32_t destination;
};

// Gives sequences their KV blocks: new ones, shared ones from the prefix cache, copies where a shared block would be
// written to. Block accounting runs ahead of the device by the steps on their way, which is safe because the stream
// keeps their order. Not thread-safe.
class KvCache {
 public:
  KvCache(int32_t num_blocks, int32_t block_size, bool enable_prefix_caching);

  int32_t block_size() const { return block_size_; }
  int64_t blocks_for(int64_t num_tokens) const { return (num_tokens + block_size_ - 1) / block_size_; }

  // The time of what follows, in seconds: blocks have an age. Never goes back.
  void set_time(double seconds) { prefix_cache_.set_time(seconds); }
  // Whether admit() would succeed.
  bool fits(const Sequence& sequence, int64_t spare, uint64_t step) const;
  // Blocks for all known tokens of a waiting sequence; num_computed becomes what the prefix cache already holds, at
  // most all but the last token. False, and nothing changed, if fewer than spare blocks would be left.
  bool admit(Sequence& sequence, int64_t spare, uint64_t step);
  // Makes the place of the next token writable. False, and nothing changed, if that takes a block and none is left.
  bool grow(Sequence& sequence) { return sequence.num_computed < sequence.writable_end || make_writable(sequence); }
  // The child shares the parent's blocks, all computed tokens and the tokens known to the host.
  void fork(Sequence& parent, Sequence& child);
  // Enters the full blocks that step completes, or an earlier one did, into the prefix cache.
  void commit(Sequence& sequence, uint64_t step) {
    if (enable_prefix_caching_ && has_full_block(sequence)) enter(sequence, step);
  }
  // Takes all blocks away; num_computed becomes 0. keep: the prefix cache learns the last, partial block, too.
  void release(Sequence& sequence, bool keep, uint64_t step);
  // The copies that admit() and grow() ask for since the last call; to run before the step.
  std::vector<BlockCopy> take_copies();
  // Forgets cached blocks that a failed step was to write.
  void discard(uint64_t step) { prefix_cache_.discard(step); }

  const BlockManager& blocks() const { return blocks_; }
  const PrefixCache& prefix_cache() const { return prefix_cache_; }

 private:
  // One that the prefix cache does not know, all of whose tokens are computed and known to the host.
  bool has_full_block(const Sequence& sequence) const {
    const int64_t written = std::min(sequence.num_computed, static_cast<int64_t>(sequence.tokens.size()));
    return (sequence.num_cached_blocks + 1) * int64_t{block_size_} <= written;
  }
  bool make_writable(Sequence& sequence);
  void enter(Sequence& sequence, uint64_t step);
  // To be called after every change of a sequence's blocks.
  void note_change(Sequence& sequence) { sequence.blocks_version = ++num_changes_; }
  int64_t num_available() const { return int64_t{blocks_.num_free()} + blocks_.num_idle(); }
  // A block with one reference; only while num_available() > 0.
  int32_t take_block();
  void reference(int32_t block);
  void release_block(int32_t block);
  PrefixMatch find_prefix(const Sequence& sequence, uint64_t step) const;
  // Blocks that would be left free or idle after the sequence got its own.
  int64_t left_after(const Sequence& sequence, const PrefixMatch& match) const;

  BlockManager blocks_;
  PrefixCache prefix_cache_;
  int32_t block_size_;
  bool enable_prefix_caching_;
  uint64_t num_changes_ = 0;       // of any sequence's blocks
  std::vector<BlockCopy> copies_;  // each source holds one reference
};

}  // namespace turbomind
