// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "turbomind/runtime/arena.h"
#include "turbomind/runtime/device.h"

namespace turbomind {

// Host arrays on their way to the device: written one after another into pinned memory, sent in one copy. A batch may
// be written as soon as the copy of the one before has ended. Grows; never shrinks.
class InputBuffer {
 public:
  InputBuffer(const Device& device, Stream& stream) : device_(device), stream_(stream), sent_(device) {}

  // Starts a batch of at most so many bytes, padding of kMemoryAlignment per array included.
  void begin(size_t bytes);
  // Room for an array of these dimensions: where to write it, and where it will lie on the device.
  template <class T>
  std::pair<T*, Tensor> reserve(DType dtype, std::initializer_list<int64_t> shape) {
    const auto [host, tensor] = take(dtype, std::span<const int64_t>(shape.begin(), shape.size()));
    return {static_cast<T*>(host), tensor};
  }
  void send();

  size_t device_bytes() const { return device_buffer_.bytes(); }

 private:
  std::pair<void*, Tensor> take(DType dtype, std::span<const int64_t> shape);

  const Device& device_;
  Stream& stream_;
  Event sent_;
  bool in_flight_ = false;
  Buffer host_;
  Buffer device_buffer_;
  size_t used_ = 0;
};

}  // namespace turbomind
