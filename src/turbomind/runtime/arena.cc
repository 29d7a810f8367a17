// SPDX-License-Identifier: Apache-2.0
#include "turbomind/runtime/arena.h"

namespace turbomind {

tm_workspace Workspace::require(size_t bytes) {
  if (bytes > buffer_.bytes()) {
    check(!stream_.capturing(), ErrorCode::kInternal, "workspace: expected at most ", buffer_.bytes(),
          " bytes while capturing, found a demand of ", bytes, "; run the step once before capturing it");
    stream_.synchronize();
    if (stream_.has_captured()) retired_.push_back(std::move(buffer_));
    buffer_ = Buffer();
    buffer_ = Buffer(device_, align_up(bytes));
  }
  return {buffer_.data(), buffer_.bytes()};
}

Arena::Arena(const Device& device, size_t bytes) : buffer_(device, align_up(bytes)) {
  check(bytes > 0, ErrorCode::kInvalidArgument, "arena: expected a size above 0 bytes, found 0");
}

Tensor Arena::allocate(const char* name, DType dtype, std::initializer_list<int64_t> shape) {
  // A measuring arena starts at a non-null address: NULL would mean "argument not given" to an op.
  char* base = measuring() ? reinterpret_cast<char*>(kMemoryAlignment) : static_cast<char*>(buffer_.data());
  const Tensor tensor = make_tensor(base + used_, dtype, shape);
  const size_t bytes = align_up(nbytes(tensor));
  check(measuring() || bytes <= buffer_.bytes() - used_, ErrorCode::kOutOfMemory, "arena: ", name,
        ": expected at most ", buffer_.bytes() - used_, " bytes, found ", bytes, " for ", to_string(tensor));
  used_ += bytes;
  regions_.push_back({name, bytes});
  if (used_ > peak_) {
    peak_ = used_;
    peak_regions_ = regions_;
  }
  return tensor;
}

void Arena::reset() {
  regions_.clear();
  used_ = 0;
}

}  // namespace turbomind
