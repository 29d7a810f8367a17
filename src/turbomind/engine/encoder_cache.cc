// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/encoder_cache.h"

#include <numeric>

namespace turbomind {

EncoderCache::EncoderCache(int64_t num_rows) : num_rows_(num_rows), free_(static_cast<size_t>(num_rows)) {
  // Taken from the back: the lowest rows first.
  std::iota(free_.rbegin(), free_.rend(), 0);
}

const EncoderCache::Entry* EncoderCache::find(const std::string& digest, uint64_t step) {
  const auto found = entries_.find(digest);
  if (found == entries_.end()) return nullptr;
  use(found, step);
  return &found->second;
}

const EncoderCache::Entry* EncoderCache::reserve(const std::string& digest, int64_t num_rows, uint64_t step) {
  std::vector<Entries::iterator> leaving;
  int64_t available = static_cast<int64_t>(free_.size());
  for (auto it = by_use_.begin(); it != by_use_.end() && available < num_rows; ++it) {
    const Entry& entry = it->second->second;
    if (entry.last_used == step || !entry.written) continue;
    available += static_cast<int64_t>(entry.rows.size());
    leaving.push_back(it->second);
  }
  if (available < num_rows) return nullptr;
  for (const Entries::iterator entry : leaving) remove(entry);
  const auto entry = entries_.try_emplace(digest).first;
  entry->second.rows.assign(free_.end() - num_rows, free_.end());
  free_.resize(free_.size() - static_cast<size_t>(num_rows));
  ++num_unwritten_;
  use(entry, step);
  return &entry->second;
}

void EncoderCache::settle() {
  for (auto& [digest, entry] : entries_) entry.written = true;
  num_unwritten_ = 0;
}

std::vector<std::string> EncoderCache::discard() {
  std::vector<std::string> digests;
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->second.written) {
      ++it;
      continue;
    }
    digests.push_back(it->first);
    it = remove(it);
  }
  num_unwritten_ = 0;
  return digests;
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
