// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/block_manager.h"

namespace turbomind {

BlockManager::BlockManager(int32_t num_blocks) : states_(static_cast<size_t>(num_blocks)) {
  free_.reserve(states_.size());
  for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

int32_t BlockManager::allocate() {
  if (free_.empty()) return kNoBlock;
  const int32_t block = free_.back();
  free_.pop_back();
  state(block).refs = 1;
  return block;
}

bool BlockManager::reference(int32_t block) {
  State& s = state(block);
  const bool was_idle = s.refs == 0;
  num_idle_ -= was_idle;
  ++s.refs;
  return was_idle;
}

bool BlockManager::release(int32_t block) {
  State& s = state(block);
  if (--s.refs > 0) return false;
  if (s.cached) {
    ++num_idle_;
    return true;
  }
  free_.push_back(block);
  return false;
}

void BlockManager::set_cached(int32_t block, bool cached) {
  State& s = state(block);
  if (s.cached && !cached && s.refs == 0) {
    --num_idle_;
    free_.push_back(block);
  }
  s.cached = cached;
}

}  // namespace turbomind
