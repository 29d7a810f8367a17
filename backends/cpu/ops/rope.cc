// SPDX-License-Identifier: Apache-2.0
#include "ops/rope.h"

#include <vector>

#include "ops.h"

namespace turbomind::cpu {
namespace {

int mrope_axis(const tm_rope_args& args, int64_t pair) {
  const int32_t* section = args.mrope_section;
  if (args.mrope_interleaved) {
    const int axis = static_cast<int>(pair % 3);
    return pair < 3 * static_cast<int64_t>(section[axis]) ? axis : 0;
  }
  if (pair < section[0]) return 0;
  return pair < section[0] + section[1] ? 1 : 2;
}

}  // namespace

RopeRows::RopeRows(const tm_rope_args& args)
    : args_(args),
      positions_(static_cast<const int32_t*>(args.positions.data)),
      table_(matrix_arg<float>(args.cos_sin, "cos_sin")),
      pairs_(args.rotary_dim / 2) {
  require_dtype<int32_t>(args.positions, "positions");
  mixed_ = args.positions.ndim == 2 && (args.mrope_section[0] | args.mrope_section[1] | args.mrope_section[2]) != 0;
  if (!mixed_) return;
  for (int64_t pair = 0; pair < pairs_; ++pair) axis_.push_back(mrope_axis(args, pair));
}

const float* RopeRows::angles(int64_t token, std::vector<float>& scratch) const {
  if (!mixed_) return table_.row(positions_[token]);
  scratch.resize(static_cast<size_t>(2 * pairs_));
  for (int64_t pair = 0; pair < pairs_; ++pair) {
    const float* row = table_.row(positions_[axis_[pair] * args_.positions.stride[0] + token]);
    scratch[pair] = row[pair];
    scratch[pairs_ + pair] = row[pairs_ + pair];
  }
  return scratch.data();
}

void RopeRows::rotate(const ElementwiseKernels& kernels, const float* angles, float* head) const {
  const auto run = args_.style == TM_ROPE_NEOX ? kernels.rotate_neox : kernels.rotate_interleaved;
  run(head, angles, angles + pairs_, pairs_);
}

void CpuOps::rope(Stream& stream, const tm_rope_args& args, const tm_workspace&) {
  const RopeRows rows(args);
  const Rows q = rows_arg(args.q, "q");
  const bool has_k = given(args.k);
  const Rows k = has_k ? rows_arg(args.k, "k") : Rows{};
  const ElementwiseKernels& kernels = stream.kernels().elementwise;
  for_rows(stream, q.outer, (q.inner + k.inner) * q.cols, [&](int64_t token) {
    std::vector<float> scratch;
    const float* angles = rows.angles(token, scratch);
    for (int64_t head = 0; head < q.inner; ++head) rows.rotate(kernels, angles, q.row(token * q.inner + head));
    for (int64_t head = 0; head < k.inner; ++head) rows.rotate(kernels, angles, k.row(token * k.inner + head));
  });
}

}  // namespace turbomind::cpu
