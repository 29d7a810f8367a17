// SPDX-License-Identifier: Apache-2.0
#include "launch.h"

#include <algorithm>

#include "stream.h"

namespace turbomind::ascend {
namespace {

constexpr size_t kTakeAlignment = 512;      // bytes
constexpr uintptr_t kTensorAlignment = 32;  // bytes, of the address aclCreateTensor takes
constexpr int64_t kFractal = 16;            // rows and 16-bit columns of one NZ fractal

template <class T>
T* require_made(T* object, const char* what) {
  if (!object) throw abi::Error(TM_OUT_OF_MEMORY, std::string(what) + " failed");
  return object;
}

}  // namespace

Descriptions::~Descriptions() {
  const Runtime& acl = library().runtime;
  for (aclTensorList* list : lists_) acl.aclDestroyTensorList(list);
  for (aclTensor* tensor : tensors_) acl.aclDestroyTensor(tensor);
  for (aclScalar* scalar : scalars_) acl.aclDestroyScalar(scalar);
  for (aclIntArray* ints : ints_) acl.aclDestroyIntArray(ints);
}

// Addresses are multiples of 32 bytes: what a view starts beyond one is an offset in elements.
aclTensor* Descriptions::tensor(const View& view) {
  const auto address = reinterpret_cast<uintptr_t>(view.data);
  const auto beyond = static_cast<int64_t>(address % kTensorAlignment);
  const int64_t bytes = element_bytes(view.type);
  require(beyond % bytes == 0, "tensor", "an address that is a multiple of its elements' size");
  int64_t offset = beyond / bytes;
  int64_t span = 1;
  for (int i = 0; i < view.rank; ++i) {
    if (view.dim(i) == 0) span = 0;
    span += span > 0 ? (view.dim(i) - 1) * view.stride[static_cast<size_t>(i)] : 0;
  }
  std::vector<int64_t> storage{offset + span};
  if (view.nz) {
    const int64_t k = view.dim(0);
    const int64_t n = view.dim(1);
    storage = {(k + kFractal - 1) / kFractal, (n + kFractal - 1) / kFractal, kFractal, kFractal};
  }
  aclTensor* made = library().runtime.aclCreateTensor(
      view.shape.data(), static_cast<uint64_t>(view.rank), view.type, view.stride.data(), offset,
      view.nz ? kAclFormatNz : kAclFormatNd, storage.data(), storage.size(),
      reinterpret_cast<void*>(address - static_cast<uintptr_t>(beyond)));
  tensors_.push_back(require_made(made, "aclCreateTensor"));
  return made;
}

aclScalar* Descriptions::scalar(const Number& number) {
  auto real = static_cast<float>(number.value);
  auto integer = static_cast<int64_t>(number.value);
  auto small = static_cast<int32_t>(integer);
  void* value = number.type == kAclFloat   ? static_cast<void*>(&real)
                : number.type == kAclInt32 ? static_cast<void*>(&small)
                                           : static_cast<void*>(&integer);
  scalars_.push_back(require_made(library().runtime.aclCreateScalar(value, number.type), "aclCreateScalar"));
  return scalars_.back();
}

aclIntArray* Descriptions::ints(const std::vector<int64_t>& values) {
  ints_.push_back(require_made(library().runtime.aclCreateIntArray(values.data(), values.size()), "aclCreateIntArray"));
  return ints_.back();
}

// The list owns its tensors from then on.
aclTensorList* Descriptions::list(const std::vector<View>& views) {
  const size_t first = tensors_.size();
  for (const View& view : views) tensor(view);
  lists_.push_back(require_made(library().runtime.aclCreateTensorList(tensors_.data() + first, views.size()),
                                "aclCreateTensorList"));
  tensors_.resize(first);
  return lists_.back();
}

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

aclrtStream Launch::stream_handle() const { return stream_->handle(); }

}  // namespace turbomind::ascend
