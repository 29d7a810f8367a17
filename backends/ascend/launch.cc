// SPDX-License-Identifier: Apache-2.0
#include "launch.h"

#include <algorithm>

#include "stream.h"

namespace turbomind::ascend {
namespace {

constexpr size_t kTakeAlignment = 512;  // bytes
}  // namespace

Launch::Launch(Stream& stream, const tm_workspace& workspace)
    : context_(&stream.context()),
      stream_(&stream),
      data_(static_cast<std::byte*>(workspace.data)),
      bytes_(workspace.bytes) {}

View Launch::take(AclType type, std::initializer_list<int64_t> shape) {
  View view = make_view(nullptr, type, shape);
  const auto bytes = static_cast<size_t>(view.size() * element_bytes(type));
  const size_t offset = used_;
  used_ += (bytes + kTakeAlignment - 1) / kTakeAlignment * kTakeAlignment;
  most_used_ = std::max(most_used_, used_);
  if (counting() || bytes == 0) return view;
  // The caller's memory may start at any multiple of 256.
  const auto start = reinterpret_cast<uintptr_t>(data_);
  if (offset + bytes > bytes_) {
    throw abi::Error(TM_INVALID_ARGUMENT, "workspace: expected at least " + std::to_string(used_) + " bytes, found " +
                                              std::to_string(bytes_));
  }
  view.data = reinterpret_cast<void*>(start + offset);
  return view;
}

void* Launch::scratch(uint64_t bytes) const { return bytes ? stream_->scratch(bytes) : nullptr; }

Executors& Launch::executors() const { return stream_->executors(); }

aclrtStream Launch::stream_handle() const { return stream_->handle(); }

}  // namespace turbomind::ascend
