// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/rope.h"
#include "ops/heads.h"
#include "stream.h"

namespace turbomind::cpu {

// A checked rope, whose rows several threads may rotate.
class Rotation {
 public:
  static constexpr int64_t kMaxRotaryDim = 1024;

  Rotation(const Stream& stream, const tm_rope_args& args);

  const Heads<float>& q() const { return q_; }
  const Heads<float>& k() const { return k_; }  // no heads if not given
  // Element operations per row, for for_row_ranges().
  int64_t row_cost() const { return (q_.heads + k_.heads) * rotary_dim_; }

  void rotate_row(int64_t row) const;

 private:
  // Cosines, then sines, of one row.
  const float* table_row(int64_t axis, int64_t row) const;
  int axis_of_pair(int64_t pair) const;
  void mix_axes(int64_t row, float* cos_sin) const;

  Heads<float> q_;
  Heads<float> k_;
  const int32_t* positions_;  // [rows] or [3, rows]
  const float* cos_sin_;      // [max_position, rotary_dim]
  int64_t max_position_;
  int64_t rotary_dim_;
  int32_t section_[3];  // all 0: one axis
  bool interleaved_axes_;
  RotateFn rotate_;
};

}  // namespace turbomind::cpu
