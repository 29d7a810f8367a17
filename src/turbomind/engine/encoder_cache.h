// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace turbomind {

// Which rows of the device's embedding buffer hold whose embeddings, by content digest. Any free rows serve, so nothing
// is ever fragmented. Least recently used contents go first, but none that the step being planned reads and none that
// an encoder is still to write. Not thread-safe.
class EncoderCache {
 public:
  struct Entry {
    std::vector<int32_t> rows;
    bool written = false;    // the encoder is done with them
    uint64_t last_used = 0;  // step
    uint64_t order = 0;      // of use, the same for no two
  };

  explicit EncoderCache(int64_t num_rows);

  // A content that is there or on its way; null if neither. Used by step.
  const Entry* find(const std::string& digest, uint64_t step);
  // Rows for a content that is not there, for an encoder to write; null if those that may be taken do not suffice.
  const Entry* reserve(const std::string& digest, int64_t num_rows, uint64_t step);
  // All that was reserved has been written.
  void settle();
  // Forgets what was reserved and not settled; returns the digests.
  std::vector<std::string> discard();

  bool has_unwritten() const { return num_unwritten_ > 0; }
  int64_t num_rows_used() const { return num_rows_ - static_cast<int64_t>(free_.size()); }

 private:
  using Entries = std::map<std::string, Entry>;

  void use(Entries::iterator entry, uint64_t step);
  Entries::iterator remove(Entries::iterator entry);

  int64_t num_rows_;
  std::vector<int32_t> free_;
  Entries entries_;
  std::map<uint64_t, Entries::iterator> by_use_;  // by Entry::order
  int64_t num_unwritten_ = 0;                     // entries
  uint64_t clock_ = 0;
};

}  // namespace turbomind
