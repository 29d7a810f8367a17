// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/prefix_cache.h"

#include <algorithm>
#include <iterator>
#include <tuple>

namespace turbomind {
namespace {

// Steps that may be on their way at once, so that recent_ stays small.
constexpr uint64_t kStepsInFlight = 4;

bool less(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

int32_t common_length(std::span<const int32_t> a, std::span<const int32_t> b) {
  const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  return static_cast<int32_t>(end - a.begin());
}

}  // namespace

bool PrefixCache::TokenOrder::operator()(int32_t a, int32_t b) const {
  return less(cache->node(a).tokens, cache->node(b).tokens);
}
bool PrefixCache::TokenOrder::operator()(int32_t a, Tokens b) const { return less(cache->node(a).tokens, b); }
bool PrefixCache::TokenOrder::operator()(Tokens a, int32_t b) const { return less(a, cache->node(b).tokens); }

PrefixCache::PrefixCache(BlockManager& blocks, int32_t block_size) : blocks_(blocks), block_size_(block_size) {
  nodes_.resize(static_cast<size_t>(blocks.num_blocks()), Node{{}, Children(TokenOrder{this}), kNoBlock, nullptr, 0});
}

PrefixMatch PrefixCache::match(const std::string& scope, Tokens tokens, uint64_t step) const {
  PrefixMatch result;
  const auto root = roots_.find(scope);
  if (root == roots_.end()) return result;
  const Children* children = &root->second;
  const auto block_size = static_cast<size_t>(block_size_);
  for (; tokens.size() >= block_size; tokens = tokens.subspan(block_size)) {
    const auto child = children->find(tokens.first(block_size));
    if (child == children->end()) break;
    result.blocks.push_back(*child);
    children = &node(*child).children;
  }
  const Tokens rest = tokens.first(std::min(tokens.size(), block_size));
  std::tie(result.partial_block, result.partial_tokens) = longest_common(*children, rest, step);
  return result;
}

std::pair<int32_t, int32_t> PrefixCache::longest_common(const Children& children, Tokens tokens, uint64_t step) const {
  std::pair<int32_t, int32_t> best{kNoBlock, 0};
  if (tokens.empty()) return best;
  const auto consider = [&](int32_t block) {
    const int32_t length = node(block).step < step ? common_length(tokens, node(block).tokens) : 0;
    if (length > best.second) best = {block, length};
  };
  // In lexicographic order the longest common prefix is shared with a neighbour.
  const auto next = children.lower_bound(tokens);
  if (next != children.end()) consider(*next);
  if (next != children.begin()) consider(*std::prev(next));
  return best;
}

int32_t PrefixCache::insert(const std::string& scope, int32_t parent, Tokens tokens, int32_t block, uint64_t step) {
  const auto root = roots_.try_emplace(scope, TokenOrder{this}).first;
  Children& children = parent == kNoBlock ? root->second : node(parent).children;
  const auto next = children.lower_bound(tokens);
  if (next != children.end()) {
    const int32_t common = common_length(tokens, node(*next).tokens);
    const bool covered = common == static_cast<int32_t>(tokens.size());
    if (covered && tokens.size() == node(*next).tokens.size()) return *next;
    if (covered) return kNoBlock;
  }
  Node& entry = node(block);
  entry.tokens.assign(tokens.begin(), tokens.end());
  entry.parent = parent;
  entry.scope = &root->first;
  entry.step = step;
  children.insert(block);
  blocks_.set_cached(block, true);
  remove_covered(children, tokens);
  if (parent != kNoBlock) evictable_.erase({node(parent).last_used, parent});
  std::erase_if(recent_, [&](int32_t old) { return node(old).step + kStepsInFlight < step; });
  recent_.push_back(block);
  return block;
}

void PrefixCache::remove_covered(Children& children, Tokens tokens) {
  const auto next = children.lower_bound(tokens);
  if (next == children.begin()) return;
  const int32_t block = *std::prev(next);
  const auto length = static_cast<int32_t>(node(block).tokens.size());
  if (is_evictable(block) && common_length(tokens, node(block).tokens) == length) remove(block);
}

void PrefixCache::mark_referenced(int32_t block) { evictable_.erase({node(block).last_used, block}); }

void PrefixCache::mark_idle(int32_t block) {
  node(block).last_used = ++clock_;
  if (node(block).children.empty()) evictable_.insert({node(block).last_used, block});
}

bool PrefixCache::evict() {
  if (evictable_.empty()) return false;
  remove(evictable_.begin()->second);
  ++num_evictions_;
  return true;
}

void PrefixCache::discard(uint64_t step) {
  const std::vector<int32_t> recent = recent_;
  for (const int32_t block : recent) {
    if (blocks_.is_cached(block) && node(block).step == step) remove_subtree(block);
  }
}

bool PrefixCache::is_evictable(int32_t block) const {
  return blocks_.ref_count(block) == 0 && node(block).children.empty();
}

void PrefixCache::remove_subtree(int32_t block) {
  const std::vector<int32_t> children(node(block).children.begin(), node(block).children.end());
  for (const int32_t child : children) remove_subtree(child);
  remove(block);
}

void PrefixCache::remove(int32_t block) {
  Node& entry = node(block);
  evictable_.erase({entry.last_used, block});
  siblings(entry).erase(block);
  const int32_t parent = entry.parent;
  if (parent != kNoBlock && is_evictable(parent)) evictable_.insert({node(parent).last_used, parent});
  if (parent == kNoBlock) {
    const auto root = roots_.find(*entry.scope);
    if (root->second.empty()) roots_.erase(root);
  }
  entry.tokens.clear();
  std::erase(recent_, block);
  blocks_.set_cached(block, false);
}

}  // namespace turbomind
