// SPDX-License-Identifier: Apache-2.0
#include "view.h"

#include <algorithm>
#include <string>

#include "check.h"

namespace turbomind::ascend {

AclType acl_type(tm_dtype dtype) {
  switch (dtype) {
    case TM_F32:
      return kAclFloat;
    case TM_F16:
      return kAclFloat16;
    case TM_BF16:
      return kAclBf16;
    case TM_I8:
      return kAclInt8;
    case TM_U8:
      return kAclUint8;
    case TM_I32:
      return kAclInt32;
    case TM_U32:
      return kAclUint32;
    case TM_I64:
      return kAclInt64;
    case TM_U64:
      return kAclUint64;
    default:
      throw abi::Error(TM_UNSUPPORTED, "dtype " + std::to_string(dtype) + ": the ascend backend has no 8-bit floats");
  }
}

int64_t element_bytes(AclType type) {
  switch (type) {
    case kAclInt8:
    case kAclUint8:
    case kAclBool:
    case kAclInt4:  // two to a byte: only whole tensors are described
      return 1;
    case kAclFloat16:
    case kAclBf16:
    case kAclInt16:
    case kAclUint16:
      return 2;
    case kAclInt64:
    case kAclUint64:
      return 8;
    default:
      return 4;
  }
}

bool View::contiguous() const {
  int64_t expected = 1;
  for (int i = rank - 1; i >= 0; --i) {
    if (dim(i) > 1 && stride[static_cast<size_t>(i)] != expected) return false;
    expected *= dim(i);
  }
  return true;
}

View View::slice(int d, int64_t begin, int64_t count, int64_t step) const {
  View view = *this;
  const auto axis = static_cast<size_t>(d < 0 ? rank + d : d);
  view.data = data ? static_cast<std::byte*>(data) + begin * stride[axis] * element_bytes(type) : nullptr;
  view.shape[axis] = count;
  view.stride[axis] *= step;
  return view;
}

View View::permuted(std::initializer_list<int> order) const {
  View view = *this;
  size_t to = 0;
  for (const int from : order) {
    view.shape[to] = shape[static_cast<size_t>(from)];
    view.stride[to++] = stride[static_cast<size_t>(from)];
  }
  return view;
}

View View::unsqueezed(int d) const {
  View view = *this;
  const auto axis = static_cast<size_t>(d < 0 ? rank + 1 + d : d);
  for (auto i = static_cast<size_t>(rank); i > axis; --i) {
    view.shape[i] = shape[i - 1];
    view.stride[i] = stride[i - 1];
  }
  view.shape[axis] = 1;
  view.stride[axis] = 1;
  ++view.rank;
  return view;
}

View View::split(int d, int64_t inner) const {
  View view = unsqueezed(d);
  const auto axis = static_cast<size_t>(d < 0 ? rank + d : d);
  view.shape[axis] = shape[axis] / inner;
  view.stride[axis] = stride[axis] * inner;
  view.shape[axis + 1] = inner;
  view.stride[axis + 1] = stride[axis];
  return view;
}

View View::reshaped(std::initializer_list<int64_t> to) const { return make_view(data, type, to); }

View View::as(AclType other) const {
  View view = *this;
  view.type = other;
  return view;
}

View make_view(void* data, AclType type, std::initializer_list<int64_t> shape) {
  View view;
  view.data = data;
  view.type = type;
  view.rank = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), view.shape.begin());
  int64_t stride = 1;
  for (int i = view.rank - 1; i >= 0; --i) {
    view.stride[static_cast<size_t>(i)] = stride;
    stride *= view.dim(i);
  }
  return view;
}

namespace {

View strided(const tm_tensor& tensor, AclType type) {
  View view;
  view.data = tensor.data;
  view.type = type;
  view.rank = tensor.ndim;
  std::copy_n(tensor.shape, tensor.ndim, view.shape.begin());
  std::copy_n(tensor.stride, tensor.ndim, view.stride.begin());
  return view;
}

}  // namespace

View make_view(const tm_tensor& tensor) { return strided(tensor, acl_type(tensor.dtype)); }

View bits_view(const tm_tensor& tensor) {
  constexpr AclType kBits[] = {kAclInt32, kAclInt16, kAclInt16, kAclInt8, kAclInt8, kAclInt32,
                               kAclInt32, kAclInt64, kAclInt64, kAclInt8, kAclInt8};  // by tm_dtype
  return strided(tensor, kBits[tensor.dtype]);
}

}  // namespace turbomind::ascend
