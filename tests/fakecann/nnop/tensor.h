// SPDX-License-Identifier: Apache-2.0
//
// What lies behind the opaque descriptions of aclnn, and the view of a tensor that operators work on.
#ifndef FAKECANN_NNOP_TENSOR_H_
#define FAKECANN_NNOP_TENSOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "abi/types.h"
#include "runtime/core.h"

#pragma GCC visibility push(default)

namespace fakecann {

using Dims = std::vector<int64_t>;

int64_t count_of(const Dims& dims);
// Bits of one element.
int64_t bits_of(int dtype);
const char* name_of(int dtype);
int dtype_named(const std::string& name);
bool is_floating(int dtype);
Dims dense_strides(const Dims& dims);

struct View {
  Dims dims;
  Dims strides;  // elements
  int64_t offset = 0;
  int dtype = ACL_FLOAT;
  int format = ACL_FORMAT_ND;
  Dims storage;
  void* data = nullptr;

  int64_t count() const { return count_of(dims); }
  int rank() const { return static_cast<int>(dims.size()); }
  // Refuses an axis that there is not.
  int64_t dim(int axis) const;
  bool is_contiguous() const;
  std::string text() const;
};

// Live descriptions: a handle that was destroyed, or never made, is refused.
void note_live(const void* handle);
void note_dead(const void* handle, const char* what);
// A number that no other description, earlier or later, has; 0 for a dead one.
uint64_t serial_of(const void* handle);

}  // namespace fakecann

#pragma GCC visibility pop

struct aclTensor {
  fakecann::View view;
};
struct aclScalar {
  int dtype;
  double value;
  int64_t integer;
};
struct aclIntArray {
  std::vector<int64_t> values;
};
struct aclFloatArray {
  std::vector<float> values;
};
struct aclBoolArray {
  std::vector<bool> values;
};
struct aclTensorList {
  std::vector<const aclTensor*> tensors;
};
struct aclScalarList {
  std::vector<const aclScalar*> scalars;
};

#endif  // FAKECANN_NNOP_TENSOR_H_
