// SPDX-License-Identifier: Apache-2.0
#include "ops/rope.h"

#include <algorithm>
#include <cstring>

#include "ops.h"
#include "ops/row_ranges.h"

namespace turbomind::cpu {

Rotation::Rotation(const Stream& stream, const tm_rope_args& args)
    : q_(heads_arg<float>(args.q, "q")),
      k_(given(args.k) ? heads_arg<float>(args.k, "k") : Heads<float>{}),
      positions_(static_cast<const int32_t*>(args.positions.data)),
      max_position_(args.cos_sin.shape[0]),
      rotary_dim_(args.rotary_dim),
      interleaved_axes_(args.mrope_interleaved != 0) {
  require_dtype<int32_t>(args.positions, "positions");
  cos_sin_ = matrix_arg<float>(args.cos_sin, "cos_sin").data;
  std::copy(std::begin(args.mrope_section), std::end(args.mrope_section), section_);
  require(rotary_dim_ > 0 && rotary_dim_ % 2 == 0 && rotary_dim_ <= std::min(q_.dim, kMaxRotaryDim), "rotary_dim",
          "an even number of at most the head size and " + std::to_string(kMaxRotaryDim));
  require(args.cos_sin.shape[1] == rotary_dim_ && (max_position_ > 0 || q_.rows == 0), "cos_sin",
          "[max_position, rotary_dim]");
  require(args.style == TM_ROPE_NEOX || args.style == TM_ROPE_INTERLEAVED, "style", "a tm_rope_style");
  rotate_ = args.style == TM_ROPE_NEOX ? stream.kernels().rope.neox : stream.kernels().rope.interleaved;
}

// Padding rows may hold any position: it is kept inside the table.
const float* Rotation::table_row(int64_t axis, int64_t row) const {
  const int64_t position = std::clamp<int64_t>(positions_[axis * q_.rows + row], 0, max_position_ - 1);
  return cos_sin_ + position * rotary_dim_;
}

int Rotation::axis_of_pair(int64_t pair) const {
  if (interleaved_axes_) {
    const int axis = static_cast<int>(pair % 3);
    return pair < 3 * section_[axis] ? axis : 0;
  }
  return pair < section_[0] ? 0 : (pair < section_[0] + section_[1] ? 1 : 2);
}

void Rotation::mix_axes(int64_t row, float* cos_sin) const {
  const int64_t pairs = rotary_dim_ / 2;
  const float* tables[3] = {table_row(0, row), table_row(1, row), table_row(2, row)};
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const float* table = tables[axis_of_pair(pair)];
    cos_sin[pair] = table[pair];
    cos_sin[pairs + pair] = table[pairs + pair];
  }
}

void Rotation::rotate_row(int64_t row) const {
  float mixed[kMaxRotaryDim];
  const bool one_axis = section_[0] + section_[1] + section_[2] == 0;
  if (!one_axis) mix_axes(row, mixed);
  const float* cos = one_axis ? table_row(0, row) : mixed;
  const int64_t pairs = rotary_dim_ / 2;
  for (int64_t head = 0; head < q_.heads; ++head) rotate_(cos, cos + pairs, pairs, q_.head(row, head));
  for (int64_t head = 0; head < k_.heads; ++head) rotate_(cos, cos + pairs, pairs, k_.head(row, head));
}

void CpuOps::rope(Stream& stream, const tm_rope_args& args, const tm_workspace&) {
  const Rotation rotation(stream, args);
  for_row_ranges(stream.pool(), rotation.q().rows, rotation.row_cost(), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) rotation.rotate_row(row);
  });
}

}  // namespace turbomind::cpu
