// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "kernels/elementwise.h"
#include "ops/row_loop.h"

namespace turbomind::cpu {

// Angles of a call's token rows; with mrope each pair takes its position from its own axis.
class RopeRows {
 public:
  explicit RopeRows(const tm_rope_args& args);

  // [rotary_dim]: cosines, then sines. The result may lie in scratch.
  const float* angles(int64_t token, std::vector<float>& scratch) const;
  // Rotates one head in place.
  void rotate(const ElementwiseKernels& kernels, const float* angles, float* head) const;

 private:
  const tm_rope_args& args_;
  const int32_t* positions_;
  Matrix<float> table_;
  int64_t pairs_;
  bool mixed_ = false;
  std::vector<int> axis_;  // of each pair; mrope only
};

}  // namespace turbomind::cpu
