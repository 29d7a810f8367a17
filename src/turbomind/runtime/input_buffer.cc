// SPDX-License-Identifier: Apache-2.0
#include "turbomind/runtime/input_buffer.h"

namespace turbomind {

void InputBuffer::begin(size_t bytes) {
  if (in_flight_) sent_.synchronize();
  in_flight_ = false;
  used_ = 0;
  if (bytes <= host_.bytes()) return;
  // Work that reads the old buffer may be on its way.
  stream_.synchronize();
  host_ = Buffer();
  device_buffer_ = Buffer();
  host_ = Buffer(device_, bytes, TM_MEMORY_PINNED_HOST);
  device_buffer_ = Buffer(device_, bytes);
}

std::pair<void*, Tensor> InputBuffer::take(DType dtype, std::span<const int64_t> shape) {
  const Tensor tensor = make_tensor(static_cast<char*>(device_buffer_.data()) + used_, dtype, shape);
  const size_t offset = used_;
  used_ = align_up(used_ + nbytes(tensor));
  check(used_ <= align_up(host_.bytes()), ErrorCode::kInternal, "inputs: expected at most ", host_.bytes(),
        " bytes, found ", used_);
  return {static_cast<char*>(host_.data()) + offset, tensor};
}

void InputBuffer::send() {
  stream_.copy(device_buffer_.data(), host_.data(), std::min(used_, host_.bytes()), TM_HOST_TO_DEVICE);
  sent_.record(stream_);
  in_flight_ = true;
}

}  // namespace turbomind
