// SPDX-License-Identifier: Apache-2.0
//
// Cuts the caller's scratch memory into arrays. The same sequence of take() calls on a counting arena gives the size,
// so <op>_workspace and the op share one function that lays the scratch memory out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cuda {

class WorkspaceArena {
 public:
  // Counts only: take() returns nullptr.
  WorkspaceArena() = default;
  explicit WorkspaceArena(const tm_workspace& workspace)
      : data_(static_cast<std::byte*>(workspace.data)), bytes_(workspace.bytes), counting_(false) {}

  // Uninitialised device array of `count` T. Throws abi::Error if the workspace is too small.
  template <class T>
  T* take(int64_t count) {
    const size_t offset = used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    if (counting_ || count == 0) return nullptr;
    if (used_ > bytes_) {
      throw abi::Error(TM_INVALID_ARGUMENT, "workspace: expected at least " + std::to_string(used_) + " bytes, found " +
                                                std::to_string(bytes_));
    }
    return reinterpret_cast<T*>(data_ + offset);
  }

  size_t used() const { return used_; }

 private:
  static constexpr size_t kAlignment = 256;

  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  size_t used_ = 0;
  bool counting_ = true;
};

}  // namespace turbomind::cuda
