// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace turbomind {

// Which rows of the device's embedding buffer hold whose embeddings, by content digest. Any free rows serve, so nothing
// is ever fragmented. Least recently used contents go first, but none that the step being planned reads: encoders run
// at its start. Not thread-safe.
class EncoderCache {
 public:
  explicit EncoderCache(int64_t num_rows);

  // The rows of a content that is there, or will be when this step's encoders have run; null if it is not. Used by
  // step.
  const std::vector<int32_t>* find(const std::string& digest, uint64_t step);
  // Rows for a content that is not there, to be written at the start of step; null if those that are not in use by step
  // do not suffice.
  const std::vector<int32_t>* reserve(const std::string& digest, int64_t num_rows, uint64_t step);
  // Forgets what a step that failed was to write.
  void discard(uint64_t step);

  int64_t num_rows_used() const { return num_rows_ - static_cast<int64_t>(free_.size()); }

 private:
  struct Entry {
    std::vector<int32_t> rows;
    uint64_t written = 0;    // step
    uint64_t last_used = 0;  // step
    uint64_t order = 0;      // of use, the same for no two
  };
  using Entries = std::map<std::string, Entry>;

  void use(Entries::iterator entry, uint64_t step);
  Entries::iterator remove(Entries::iterator entry);

  int64_t num_rows_;
  std::vector<int32_t> free_;
  Entries entries_;
  std::map<uint64_t, Entries::iterator> by_use_;  // by Entry::order
  uint64_t clock_ = 0;
};

}  // namespace turbomind
