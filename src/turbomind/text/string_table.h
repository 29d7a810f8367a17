// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace turbomind {

// How many strings of an array in a GGUF file lie whole within the data, at most as many as it should have, and where
// the last of these ends, in bytes. Each string is a 64-bit length, little-endian, and its bytes (GGUF specification).
struct StringExtent {
  size_t strings = 0;
  size_t bytes = 0;
};
StringExtent measure_strings(std::span<const uint8_t> data, size_t count);

// The strings of a vocabulary, by id and by content: a few bytes a string beyond the text, where an object each would
// take ten times that. Immutable; any number of threads may read it.
class StringTable {
 public:
  static constexpr int32_t kNone = -1;

  // Copies `count` strings out of the data, see measure_strings. Throws kInvalidArgument if there are fewer, if one is
  // not UTF-8, or beyond 2^31 strings or 2^32 bytes of text.
  StringTable(std::span<const uint8_t> data, size_t count);

  size_t size() const { return ends_.size(); }
  size_t longest() const { return longest_; }  // bytes
  std::string_view operator[](size_t id) const {
    const size_t begin = id == 0 ? 0 : ends_[id - 1];
    return std::string_view(text_).substr(begin, ends_[id] - begin);
  }

  // The highest id of the string, or kNone.
  int32_t find(std::string_view text) const;

 private:
  void build_index() const;

  std::string text_;            // of all strings, end to end
  std::vector<uint32_t> ends_;  // in text_, by id
  size_t longest_ = 0;
  // Ids by hash, open addressing; made by the first search, as a list of merges is never searched.
  mutable std::once_flag index_made_;
  mutable std::vector<int32_t> index_;
};

}  // namespace turbomind
