// SPDX-License-Identifier: Apache-2.0
//
// A strided view of device memory, as aclnn's tensors are described. Cheap to copy; slicing and reshaping make new
// views of the same memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "acl/types.h"
#include "turbomind/abi/tm_backend.h"

namespace turbomind::ascend {

inline constexpr int kMaxRank = 6;

AclType acl_type(tm_dtype dtype);  // throws TM_UNSUPPORTED for what aclnn has no name for
int64_t element_bytes(AclType type);

struct View {
  void* data = nullptr;
  AclType type = kAclFloat;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape{};
  std::array<int64_t, kMaxRank> stride{};  // elements
  bool nz = false;                         // a matrix [k, n] whose memory holds 16 x 16 fractals of [n, k]

  int64_t size() const {
    int64_t count = 1;
    for (int i = 0; i < rank; ++i) count *= shape[static_cast<size_t>(i)];
    return count;
  }
  int64_t dim(int i) const { return shape[static_cast<size_t>(i < 0 ? rank + i : i)]; }
  bool contiguous() const;

  // Elements [begin, begin + count * step) of dimension d, every step-th.
  View slice(int d, int64_t begin, int64_t count, int64_t step = 1) const;
  // The same memory with other dimensions in another order of strides.
  View permuted(std::initializer_list<int> order) const;
  // A dimension of size 1 in front of dimension d.
  View unsqueezed(int d) const;
  // Dimension d [a * b] as [a, b].
  View split(int d, int64_t inner) const;
  // The same contiguous memory in another shape or, with as(), as elements of another type of the same size.
  View reshaped(std::initializer_list<int64_t> to) const;
  View as(AclType other) const;
};

View make_view(void* data, AclType type, std::initializer_list<int64_t> shape);  // contiguous
View make_view(const tm_tensor& tensor);
// Bits of any dtype, for copies: an integer type of the same size.
View bits_view(const tm_tensor& tensor);

}  // namespace turbomind::ascend
