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

namespace turbomind {

struct PrefixMatch {
  std::vector<int32_t> blocks;       // full blocks, in order
  int32_t partial_block = kNoBlock;  // its first partial_tokens tokens follow
  int32_t partial_tokens = 0;
};

// A radix tree over KV blocks (after RadixAttention, Zheng et al. 2024, arXiv:2312.07104). A node is one block; its key
// is the exact tokens in it, its parent, and the scope its root belongs to. A scope is whatever else the KV depends on
// or must not be shared across (tenant salt, adapter). Token ids are opaque here: a caller gives placeholders of media
// ids of its own that stand for the media's content hash. Full blocks are shared; of any block the matching part can be
// copied.
//
// A node's block may be entered as soon as the step that writes it is planned: readers of the same step see it, because
// every layer writes all keys before it attends. Copies run before the step, so they need an earlier one.
// Not thread-safe.
class PrefixCache {
 public:
  PrefixCache(BlockManager& blocks, int32_t block_size);

  // The longest cached prefix of tokens, for a step.
  PrefixMatch match(const std::string& scope, std::span<const int32_t> tokens, uint64_t step) const;
  // Enters a referenced block, written by step, below parent (kNoBlock: the scope's root). tokens: up to a block; fewer
  // only for a sequence's last block. Returns the block that stands for these tokens now, which is another one if they
  // were cached already; kNoBlock if a part of a block was not worth entering.
  int32_t insert(const std::string& scope, int32_t parent, std::span<const int32_t> tokens, int32_t block,
                 uint64_t step);
  // A sequence took (or let go of) a cached block; BlockManager::reference (or release) said that it was (or became)
  // idle.
  void mark_referenced(int32_t block);
  void mark_idle(int32_t block);
  // Frees the block least recently in use that nothing is built on. False if no block is idle.
  bool evict();
  // Forgets what a step that failed was to write, with everything below it.
  void discard(uint64_t step);

  int64_t num_evictions() const { return num_evictions_; }

 private:
  using Tokens = std::span<const int32_t>;
  struct TokenOrder {  // lexicographic, on the nodes' tokens
    using is_transparent = void;
    const PrefixCache* cache;
    bool operator()(int32_t a, int32_t b) const;
    bool operator()(int32_t a, Tokens b) const;
    bool operator()(Tokens a, int32_t b) const;
  };
  using Children = std::set<int32_t, TokenOrder>;
  struct Node {
    std::vector<int32_t> tokens;
    Children children;
    int32_t parent;
    const std::string* scope;  // key of roots_
    uint64_t step;             // that writes it
    uint64_t last_used = 0;
  };

  Node& node(int32_t block) { return nodes_[static_cast<size_t>(block)]; }
  const Node& node(int32_t block) const { return nodes_[static_cast<size_t>(block)]; }
  Children& siblings(const Node& node) {
    return node.parent == kNoBlock ? roots_.at(*node.scope) : this->node(node.parent).children;
  }
  // The child sharing most tokens with a prefix of tokens, and how many; copyable ones only.
  std::pair<int32_t, int32_t> longest_common(const Children& children, Tokens tokens, uint64_t step) const;
  // Removes an idle part of a block that a longer block makes useless.
  void remove_covered(Children& children, Tokens tokens);
  bool is_evictable(int32_t block) const;
  void remove(int32_t block);
  void remove_subtree(int32_t block);

  BlockManager& blocks_;
  int32_t block_size_;
  std::vector<Node> nodes_;                           // by block
  std::map<std::string, Children> roots_;             // by scope
  std::set<std::pair<uint64_t, int32_t>> evictable_;  // (last_used, block) of idle nodes without children
  std::vector<int32_t> recent_;                       // entered by the last steps, which may still fail
  uint64_t clock_ = 0;
  int64_t num_evictions_ = 0;
};

}  // namespace turbomind
