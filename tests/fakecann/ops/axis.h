// SPDX-License-Identifier: Apache-2.0
//
// A tensor seen as [outer, length, inner] around one axis.
#ifndef FAKECANN_OPS_AXIS_H_
#define FAKECANN_OPS_AXIS_H_

#include "nnop/call.h"

namespace fakecann {

struct Axis {
  int64_t outer = 1;
  int64_t length = 1;
  int64_t inner = 1;

  int64_t at(int64_t o, int64_t i, int64_t in) const { return (o * length + i) * inner + in; }
};

// Refuses a `dim` outside the rank; a rank of 0 counts as 1.
inline Axis axis_of(const Call& call, const Dims& dims, int64_t dim) {
  const auto rank = static_cast<int64_t>(dims.size());
  const int64_t bound = rank == 0 ? 1 : rank;
  call.require(dim >= -bound && dim < bound, "dim names an axis");
  if (rank == 0) return {};
  if (dim < 0) dim += rank;
  Axis axis;
  axis.length = dims[dim];
  for (int64_t i = 0; i < dim; ++i) axis.outer *= dims[i];
  for (int64_t i = dim + 1; i < rank; ++i) axis.inner *= dims[i];
  return axis;
}

}  // namespace fakecann

#endif  // FAKECANN_OPS_AXIS_H_
