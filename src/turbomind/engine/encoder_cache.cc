// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/encoder_cache.h"

#include <numeric>

namespace turbomind {

EncoderCache::EncoderCache(int64_t num_rows) : num_rows_(num_rows), free_(static_cast<size_t>(num_rows)) {
  // Taken from the back: the lowest rows first.
  std::iota(free_.rbegin(), free_.rend(), 0);
}

const std::vector<int32_t>* EncoderCache::find(const std::string& digest, uint64_t step) {
  const auto found = entries_.find(digest);
  if (found == entries_.end()) return nullptr;
  use(found, step);
  return &found->second.rows;
}

const std::vector<int32_t>* EncoderCache::reserve(const std::string& digest, int64_t num_rows, uint64_t step) {
  int64_t available = static_cast<int64_t>(free_.size());
  for (auto it = by_use_.begin(); it != by_use_.end() && available < num_rows; ++it) {
    const Entry& entry = it->second->second;
    if (entry.last_used < step) available += static_cast<int64_t>(entry.rows.size());
  }
  if (available < num_rows) return nullptr;
  // In order of use, what this step reads comes last.
  while (static_cast<int64_t>(free_.size()) < num_rows) remove(by_use_.begin()->second);
  const auto entry = entries_.try_emplace(digest).first;
  entry->second.rows.assign(free_.end() - num_rows, free_.end());
  free_.resize(free_.size() - static_cast<size_t>(num_rows));
  entry->second.written = step;
  use(entry, step);
  return &entry->second.rows;
}

void EncoderCache::discard(uint64_t step) {
  for (auto it = entries_.begin(); it != entries_.end();) it = it->second.written == step ? remove(it) : std::next(it);
}

void EncoderCache::use(Entries::iterator entry, uint64_t step) {
  by_use_.erase(entry->second.order);
  entry->second.last_used = step;
  entry->second.order = ++clock_;
  by_use_.emplace(clock_, entry);
}

EncoderCache::Entries::iterator EncoderCache::remove(Entries::iterator entry) {
  by_use_.erase(entry->second.order);
  free_.insert(free_.end(), entry->second.rows.begin(), entry->second.rows.end());
  return entries_.erase(entry);
}

}  // namespace turbomind
