// SPDX-License-Identifier: Apache-2.0
//
// Memory of a step: scratch for single ops (Workspace) and the activations that live between ops (Arena).
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "turbomind/runtime/device.h"

namespace turbomind {

inline constexpr size_t align_up(size_t bytes, size_t alignment = kMemoryAlignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Scratch shared by the ops of one stream, one op after the other. Sized before use; a later demand grows it (the
// stream is drained first), except while capturing, where a demand that does not fit throws kInternal.
class Workspace {
 public:
  Workspace(const Device& device, Stream& stream) : device_(device), stream_(stream) {}

  // At least so many bytes. The view is valid until the next require().
  tm_workspace require(size_t bytes);
  size_t bytes() const { return buffer_.bytes(); }

 private:
  const Device& device_;
  Stream& stream_;
  Buffer buffer_;
  std::vector<Buffer> retired_;  // a captured graph may still point into these
};

// A stack of named activations in one buffer. A measuring arena hands out addresses that must not be touched, to find
// the peak before anything is allocated. Not thread-safe.
class Arena {
 public:
  struct Region {
    const char* name;
    size_t bytes;
  };
  // Frees, at its end, what was allocated since its start.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), num_regions_(arena.regions_.size()), used_(arena.used_) {}
    ~Scope() {
      arena_.regions_.resize(num_regions_);
      arena_.used_ = used_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t num_regions_;
    size_t used_;
  };

  Arena() = default;  // measuring, no limit
  Arena(const Device& device, size_t bytes);

  // name: a string literal, kept as a pointer. Throws kOutOfMemory when the arena is full.
  Tensor allocate(const char* name, DType dtype, std::initializer_list<int64_t> shape);
  // Frees everything.
  void reset();

  bool measuring() const { return buffer_.data() == nullptr; }
  size_t used() const { return used_; }
  // Most bytes in use at any moment since construction, and what they were.
  size_t peak() const { return peak_; }
  const std::vector<Region>& peak_regions() const { return peak_regions_; }

 private:
  Buffer buffer_;
  std::vector<Region> regions_;
  std::vector<Region> peak_regions_;
  size_t used_ = 0;
  size_t peak_ = 0;
};

}  // namespace turbomind
