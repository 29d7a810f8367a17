// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "turbomind/engine/block_manager.h"
#include "turbomind/engine/request.h"
#include "turbomind/engine/stats.h"

namespace turbomind {

// Tokens of a sequence from position `begin` on, with the keys that the sequence has anywhere, in rising order.
// What stands at a position is its token and every key that covers it.
struct KeyedTokens {
  std::span<const int32_t> tokens;
  std::span<const CacheKey> keys;
  int64_t begin = 0;

  size_t size() const { return tokens.size(); }
  bool empty() const { return tokens.empty(); }
  KeyedTokens first(size_t count) const { return {tokens.first(count), keys, begin}; }
  KeyedTokens from(size_t offset) const { return {tokens.subspan(offset), keys, begin + static_cast<int64_t>(offset)}; }
};

struct PrefixMatch {
  std::vector<int32_t> blocks;       // full blocks, in order
  int32_t partial_block = kNoBlock;  // its first partial_tokens tokens follow
  int32_t partial_tokens = 0;
};

// A radix tree over KV blocks (after RadixAttention, Zheng et al. 2024, arXiv:2312.07104). A node is one block; its key
// is the exact tokens in it, the cache keys that cover them (media content, adapter), its parent, and the scope its
// root belongs to (tenant salt). Full blocks are shared; of any block the matching part can be copied.
//
// A node's block may be entered as soon as the step that writes it is planned: readers of the same step see it, because
// every layer writes all keys before it attends. Copies run before the step, so they need an earlier one.
// Not thread-safe.
class PrefixCache {
 public:
  PrefixCache(BlockManager& blocks, int32_t block_size);

  // The longest cached prefix of tokens, for a step.
  PrefixMatch match(const std::string& scope, KeyedTokens tokens, uint64_t step) const;
  // Enters a referenced block, written by step, below parent (kNoBlock: the scope's root). tokens: up to a block; fewer
  // only for a sequence's last block. Returns the block that stands for these tokens now, which is another one if they
  // were cached already; kNoBlock if a part of a block was not worth entering.
  int32_t insert(const std::string& scope, int32_t parent, KeyedTokens tokens, int32_t block, uint64_t step);
  // On the clock of the ages; never goes back.
  void set_time(double seconds) { now_ = seconds; }
  // A block that the cache does not know begins its life.
  void mark_allocated(int32_t block) { node(block).born = now_; }
  // A sequence took (or let go of) a cached block; BlockManager::reference (or release) said that it was (or became)
  // idle.
  void mark_referenced(int32_t block);
  void mark_idle(int32_t block);
  // Frees the block least recently in use that nothing is built on. False if no block is idle.
  bool evict();
  // Forgets what a step that failed was to write, with everything below it.
  void discard(uint64_t step);

  const BlockAges& ages() const { return ages_; }

 private:
  struct TokenOrder {  // lexicographic, on the nodes' positions
    using is_transparent = void;
    const PrefixCache* cache;
    bool operator()(int32_t a, int32_t b) const;
    bool operator()(int32_t a, KeyedTokens b) const;
    bool operator()(KeyedTokens a, int32_t b) const;
  };
  using Children = std::set<int32_t, TokenOrder>;
  using Evictable = std::set<std::pair<uint64_t, int32_t>>;  // (last_used, block)
  struct Node {
    std::vector<int32_t> tokens;
    std::vector<CacheKey> keys;  // those that cover one of them
    int64_t begin;               // position of the first
    Children children;
    int32_t parent;
    const std::string* scope;  // key of roots_
    uint64_t step;             // that writes it
    uint64_t last_used = 0;
    double born = 0.0;             // seconds, as idle_since
    double idle_since = 0.0;       // while no sequence references it
    Evictable::node_type place{};  // its memory in evictable_ while it is not there: giving a block back cannot fail
  };

  Node& node(int32_t block) { return nodes_[static_cast<size_t>(block)]; }
  const Node& node(int32_t block) const { return nodes_[static_cast<size_t>(block)]; }
  KeyedTokens tokens_of(int32_t block) const { return {node(block).tokens, node(block).keys, node(block).begin}; }
  Children& siblings(const Node& node) {
    return node.parent == kNoBlock ? roots_.at(*node.scope) : this->node(node.parent).children;
  }
  // The child sharing most tokens with a prefix of tokens, and how many; copyable ones only.
  std::pair<int32_t, int32_t> longest_common(const Children& children, KeyedTokens tokens, uint64_t step) const;
  // Removes an idle part of a block that a longer block makes useless.
  void remove_covered(Children& children, KeyedTokens tokens);
  bool is_evictable(int32_t block) const;
  void make_evictable(int32_t block);
  void make_unevictable(int32_t block);
  void remove(int32_t block);
  void remove_subtree(int32_t block);

  BlockManager& blocks_;
  int32_t block_size_;
  std::vector<Node> nodes_;                // by block
  std::map<std::string, Children> roots_;  // by scope
  Evictable evictable_;                    // idle nodes without children
  std::vector<int32_t> recent_;            // entered by the last steps, which may still fail
  uint64_t clock_ = 0;
  double now_ = 0.0;
  BlockAges ages_;
};

}  // namespace turbomind
