// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/prefix_cache.h"

#include <algorithm>
#include <iterator>
#include <tuple>

namespace turbomind {
namespace {

// Steps that may be on their way at once, so that recent_ stays small.
constexpr uint64_t kStepsInFlight = 4;

bool covers(const CacheKey& key, int64_t position) { return key.begin <= position && position < key.end; }

// The keys at the i-th position, which has the same number in both. A span's begin counts: the same picture twice is
// not one picture of twice the length. Its end does not, as a prefix may not know it yet.
std::strong_ordering compare_keys(const KeyedTokens& a, const KeyedTokens& b, size_t i) {
  if (a.keys.empty() && b.keys.empty()) return std::strong_ordering::equal;
  const auto next = [i](const KeyedTokens& of, size_t at) {
    while (at < of.keys.size() && !covers(of.keys[at], of.begin + static_cast<int64_t>(i))) ++at;
    return at;
  };
  size_t x = next(a, 0);
  size_t y = next(b, 0);
  for (; x < a.keys.size() && y < b.keys.size(); x = next(a, x + 1), y = next(b, y + 1)) {
    const auto order = std::tie(a.keys[x].begin, a.keys[x].key) <=> std::tie(b.keys[y].begin, b.keys[y].key);
    if (order != 0) return order;
  }
  return (x < a.keys.size()) <=> (y < b.keys.size());
}

int32_t common_length(const KeyedTokens& a, const KeyedTokens& b) {
  const auto same_tokens = std::mismatch(a.tokens.begin(), a.tokens.end(), b.tokens.begin(), b.tokens.end()).first;
  const auto count = static_cast<size_t>(same_tokens - a.tokens.begin());
  size_t length = a.keys.empty() && b.keys.empty() ? count : 0;
  while (length < count && compare_keys(a, b, length) == 0) ++length;
  return static_cast<int32_t>(length);
}

bool less(const KeyedTokens& a, const KeyedTokens& b) {
  const auto at = static_cast<size_t>(common_length(a, b));
  if (at == a.size() || at == b.size()) return a.size() < b.size();
  if (a.tokens[at] != b.tokens[at]) return a.tokens[at] < b.tokens[at];
  return compare_keys(a, b, at) < 0;
}

}  // namespace

bool PrefixCache::TokenOrder::operator()(int32_t a, int32_t b) const {
  return less(cache->tokens_of(a), cache->tokens_of(b));
}
bool PrefixCache::TokenOrder::operator()(int32_t a, KeyedTokens b) const { return less(cache->tokens_of(a), b); }
bool PrefixCache::TokenOrder::operator()(KeyedTokens a, int32_t b) const { return less(a, cache->tokens_of(b)); }

PrefixCache::PrefixCache(BlockManager& blocks, int32_t block_size) : blocks_(blocks), block_size_(block_size) {
  nodes_.reserve(static_cast<size_t>(blocks.num_blocks()));
  for (int32_t block = 0; block < blocks.num_blocks(); ++block) {
    nodes_.push_back(Node{{}, {}, 0, Children(TokenOrder{this}), kNoBlock, nullptr, 0});
    nodes_.back().place = evictable_.extract(evictable_.insert({0, block}).first);
  }
}

PrefixMatch PrefixCache::match(const std::string& scope, KeyedTokens tokens, uint64_t step) const {
  PrefixMatch result;
  const auto root = roots_.find(scope);
  if (root == roots_.end()) return result;
  const Children* children = &root->second;
  const auto block_size = static_cast<size_t>(block_size_);
  for (; tokens.size() >= block_size; tokens = tokens.from(block_size)) {
    const auto child = children->find(tokens.first(block_size));
    if (child == children->end()) break;
    result.blocks.push_back(*child);
    children = &node(*child).children;
  }
  const KeyedTokens rest = tokens.first(std::min(tokens.size(), block_size));
  std::tie(result.partial_block, result.partial_tokens) = longest_common(*children, rest, step);
  return result;
}

std::pair<int32_t, int32_t> PrefixCache::longest_common(const Children& children, KeyedTokens tokens,
                                                        uint64_t step) const {
  std::pair<int32_t, int32_t> best{kNoBlock, 0};
  if (tokens.empty()) return best;
  const auto consider = [&](int32_t block) {
    const int32_t length = node(block).step < step ? common_length(tokens, tokens_of(block)) : 0;
    if (length > best.second) best = {block, length};
  };
  // In lexicographic order the longest common prefix is shared with a neighbour.
  const auto next = children.lower_bound(tokens);
  if (next != children.end()) consider(*next);
  if (next != children.begin()) consider(*std::prev(next));
  return best;
}

int32_t PrefixCache::insert(const std::string& scope, int32_t parent, KeyedTokens tokens, int32_t block,
                            uint64_t step) {
  const auto root = roots_.try_emplace(scope, TokenOrder{this}).first;
  Children& children = parent == kNoBlock ? root->second : node(parent).children;
  const auto next = children.lower_bound(tokens);
  if (next != children.end()) {
    const int32_t common = common_length(tokens, tokens_of(*next));
    const bool covered = common == static_cast<int32_t>(tokens.size());
    if (covered && tokens.size() == node(*next).tokens.size()) return *next;
    if (covered) return kNoBlock;
  }
  Node& entry = node(block);
  entry.tokens.assign(tokens.tokens.begin(), tokens.tokens.end());
  entry.begin = tokens.begin;
  entry.keys.clear();
  const int64_t end = tokens.begin + static_cast<int64_t>(tokens.size());
  std::copy_if(tokens.keys.begin(), tokens.keys.end(), std::back_inserter(entry.keys),
               [&](const CacheKey& key) { return key.begin < end && tokens.begin < key.end; });
  entry.parent = parent;
  entry.scope = &root->first;
  entry.step = step;
  children.insert(block);
  blocks_.set_cached(block, true);
  remove_covered(children, tokens);
  if (parent != kNoBlock) make_unevictable(parent);
  std::erase_if(recent_, [&](int32_t old) { return node(old).step + kStepsInFlight < step; });
  recent_.push_back(block);
  return block;
}

void PrefixCache::remove_covered(Children& children, KeyedTokens tokens) {
  const auto next = children.lower_bound(tokens);
  if (next == children.begin()) return;
  const int32_t block = *std::prev(next);
  const auto length = static_cast<int32_t>(node(block).tokens.size());
  if (is_evictable(block) && common_length(tokens, tokens_of(block)) == length) remove(block);
}

void PrefixCache::mark_referenced(int32_t block) {
  ages_.reuse.count(now_ - node(block).idle_since);
  make_unevictable(block);
}

void PrefixCache::mark_idle(int32_t block) {
  node(block).last_used = ++clock_;
  node(block).idle_since = now_;
  if (node(block).children.empty()) make_evictable(block);
}

void PrefixCache::make_evictable(int32_t block) {
  Node& entry = node(block);
  entry.place.value() = {entry.last_used, block};
  evictable_.insert(std::move(entry.place));
}

void PrefixCache::make_unevictable(int32_t block) {
  Node& entry = node(block);
  if (entry.place.empty()) entry.place = evictable_.extract({entry.last_used, block});
}

bool PrefixCache::evict() {
  if (evictable_.empty()) return false;
  const int32_t block = evictable_.begin()->second;
  ages_.lifetime.count(now_ - node(block).born);
  ages_.idle.count(now_ - node(block).idle_since);
  remove(block);
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
  make_unevictable(block);
  siblings(entry).erase(block);
  const int32_t parent = entry.parent;
  if (parent != kNoBlock && is_evictable(parent)) make_evictable(parent);
  if (parent == kNoBlock) {
    const auto root = roots_.find(*entry.scope);
    if (root->second.empty()) roots_.erase(root);
  }
  entry.tokens.clear();
  entry.keys.clear();
  std::erase(recent_, block);
  blocks_.set_cached(block, false);
}

}  // namespace turbomind
