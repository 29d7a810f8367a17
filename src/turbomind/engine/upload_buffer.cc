// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/upload_buffer.h"

#include <bit>

namespace turbomind {

void UploadBuffer::begin(size_t bytes) {
  half_ = 1 - half_;
  used_ = 0;
  if (bytes <= device_buffer_.bytes()) return;
  stream_.synchronize();
  const size_t grown = std::bit_ceil(bytes);
  device_buffer_ = Buffer();
  device_buffer_ = Buffer(device_, grown);
  for (Buffer& host : host_) host = Buffer(device_, grown, TM_MEMORY_PINNED_HOST);
}

size_t UploadBuffer::take(size_t bytes) {
  check(used_ + bytes <= host_[half_].bytes(), ErrorCode::kInternal, "upload buffer: expected at most ",
        host_[half_].bytes() - used_, " more bytes, found ", bytes);
  const size_t offset = used_;
  used_ += bytes;
  return offset;
}

void UploadBuffer::send() { stream_.copy(device_buffer_.data(), host_[half_].data(), used_, TM_HOST_TO_DEVICE); }

}  // namespace turbomind
