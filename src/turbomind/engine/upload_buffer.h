// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "turbomind/runtime/arena.h"
#include "turbomind/runtime/device.h"

namespace turbomind {

// Host arrays laid one after another in pinned memory and sent to the device in one copy. Two host halves take turns,
// so that a batch can be written while the one before is still being copied. As long as the same arrays are added with
// the same capacities and the buffer does not grow, each lies at the same device address in every batch.
class UploadBuffer {
 public:
  UploadBuffer(const Device& device, Stream& stream) : device_(device), stream_(stream) {}

  // Starts a batch of at most so many bytes, padding of kMemoryAlignment per array included.
  void begin(size_t bytes);
  // The array's place on the device, [values.size()]; capacity: elements reserved, if more. padded: elements of the
  // array, if more than values; the others are 0.
  template <class T>
  Tensor add(const std::vector<T>& values, size_t capacity = 0, size_t padded = 0);
  void send();

  size_t device_bytes() const { return device_buffer_.bytes(); }
  // What an array of so many elements takes.
  template <class T>
  static size_t bytes_for(size_t count) {
    return align_up(count * sizeof(T));
  }

 private:
  template <class T>
  static constexpr DType dtype_of();
  // Reserves the next bytes; their offset.
  size_t take(size_t bytes);

  const Device& device_;
  Stream& stream_;
  std::array<Buffer, 2> host_;
  Buffer device_buffer_;
  size_t half_ = 0;
  size_t used_ = 0;
};

template <class T>
constexpr DType UploadBuffer::dtype_of() {
  if constexpr (std::is_same_v<T, float>) return TM_F32;
  if constexpr (std::is_same_v<T, int32_t>) return TM_I32;
  if constexpr (std::is_same_v<T, uint32_t>) return TM_U32;
  if constexpr (std::is_same_v<T, int64_t>) return TM_I64;
  if constexpr (std::is_same_v<T, uint64_t>) return TM_U64;
}

template <class T>
Tensor UploadBuffer::add(const std::vector<T>& values, size_t capacity, size_t padded) {
  const size_t count = std::max(values.size(), padded);
  const size_t offset = take(bytes_for<T>(std::max(capacity, count)));
  auto* to = reinterpret_cast<T*>(static_cast<char*>(host_[half_].data()) + offset);
  std::fill(std::copy(values.begin(), values.end(), to), to + count, T{});
  return make_tensor(static_cast<char*>(device_buffer_.data()) + offset, dtype_of<T>(), {static_cast<int64_t>(count)});
}

}  // namespace turbomind
