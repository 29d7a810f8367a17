// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace turbomind {

inline constexpr int32_t kNoBlock = -1;

// Who holds which KV block. A block is referenced by sequences, or idle (held by the prefix cache alone, may be
// evicted), or free. Not thread-safe.
class BlockManager {
 public:
  explicit BlockManager(int32_t num_blocks);

  int32_t num_blocks() const { return static_cast<int32_t>(states_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_idle() const { return num_idle_; }

  // A free block with one reference, or kNoBlock.
  int32_t allocate();
  // True if the block was idle before.
  bool reference(int32_t block);
  // True if the block became idle. A block that is not cached becomes free with its last reference.
  bool release(int32_t block);
  // Enters a referenced block into the prefix cache, or takes one out; an idle one becomes free.
  void set_cached(int32_t block, bool cached);

  int32_t ref_count(int32_t block) const { return state(block).refs; }
  bool is_cached(int32_t block) const { return state(block).cached; }

 private:
  struct State {
    int32_t refs = 0;
    bool cached = false;
  };
  State& state(int32_t block) { return states_[static_cast<size_t>(block)]; }
  const State& state(int32_t block) const { return states_[static_cast<size_t>(block)]; }

  std::vector<State> states_;
  std::vector<int32_t> free_;  // a stack: memory that was touched already is used again first
  int32_t num_idle_ = 0;
};

}  // namespace turbomind
