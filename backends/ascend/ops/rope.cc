// SPDX-License-Identifier: Apache-2.0
//
// Rotary position embedding. The vendor's fused operators take cosines in the dtype of the heads; the contract wants
// the rotation in float32 and one rounding, so it is composed of products that promote.
#include "ops.h"

namespace turbomind::ascend {
namespace {

bool is_mrope(const tm_rope_args& args) { return args.positions.ndim == 2; }

// The table's rows of one axis' positions: f32 [T, rotary_dim].
View look_up(Launch& launch, const tm_rope_args& args, const View& positions) {
  const View rows = launch.take(kAclFloat, {positions.dim(0), args.rotary_dim});
  launch(library().op.IndexSelect, make_view(args.cos_sin), int64_t{0}, positions, rows);
  return rows;
}

// Copies `count` pairs, every step-th from `begin`, of both cosines and sines.
void copy_pairs(Launch& launch, const View& to, const View& from, int64_t begin, int64_t count, int64_t step) {
  const int64_t pairs = to.dim(1) / 2;
  for (const int64_t half : {int64_t{0}, pairs}) {
    launch.copy(to.slice(1, half + begin, count, step), from.slice(1, half + begin, count, step));
  }
}

// Each pair's angle from its axis' position.
View mrope_rows(Launch& launch, const tm_rope_args& args) {
  const View positions = make_view(args.positions);
  const auto axis_rows = [&](int axis) {
    const View row = positions.slice(0, axis, 1);
    return look_up(launch, args, make_view(row.data, row.type, {row.dim(1)}));
  };
  const View rows = axis_rows(0);
  int64_t begin = args.mrope_section[0];
  for (int axis = 1; axis < 3; ++axis) {
    const int64_t count = args.mrope_section[axis];
    if (count > 0) {
      const View other = axis_rows(axis);
      if (args.mrope_interleaved) {
        copy_pairs(launch, rows, other, axis, count, 3);
      } else {
        copy_pairs(launch, rows, other, begin, count, 1);
      }
    }
    begin += count;
  }
  return rows;
}

// x [T, heads, dim], in place.
void rotate(Launch& launch, const View& x, const View& rows, int64_t rotary_dim, tm_rope_style style) {
  const Operators& op = library().op;
  const int64_t pairs = rotary_dim / 2;
  const bool interleaved = style == TM_ROPE_INTERLEAVED;
  const View first = interleaved ? x.slice(2, 0, pairs, 2) : x.slice(2, 0, pairs);
  const View second = interleaved ? x.slice(2, 1, pairs, 2) : x.slice(2, pairs, pairs);
  const View cosines = rows.slice(1, 0, pairs).unsqueezed(1);
  const View sines = rows.slice(1, pairs, pairs).unsqueezed(1);
  const auto product = [&](const View& a, const View& b) {
    const View result = launch.take(kAclFloat, {x.dim(0), x.dim(1), pairs});
    launch(op.Mul, a, b, result);
    return result;
  };
  const View first_cos = product(first, cosines);
  const View second_sin = product(second, sines);
  const View second_cos = product(second, cosines);
  const View first_sin = product(first, sines);
  launch(op.Sub, first_cos, second_sin, Number{1}, first);
  launch(op.Add, second_cos, first_sin, Number{1}, second);
}

// k right behind q in every row, as one product leaves them.
bool are_neighbours(const tm_tensor& q, const tm_tensor& k) {
  const int64_t width = q.shape[1] * q.shape[2];
  return k.dtype == q.dtype && k.stride[0] == q.stride[0] && k.stride[1] == q.stride[1] && q.stride[1] == q.shape[2] &&
         static_cast<const std::byte*>(k.data) ==
             static_cast<const std::byte*>(q.data) + width * element_bytes(acl_type(q.dtype));
}

}  // namespace

void compose(Launch& launch, const tm_rope_args& args) {
  require_float(args.q, "q");
  require_rank(args.q, 3, "q");
  require_dtype(args.cos_sin, TM_F32, "cos_sin");
  require(args.rotary_dim > 0 && args.rotary_dim % 2 == 0 && args.rotary_dim <= args.q.shape[2], "rotary_dim",
          "an even number up to the size of a head");
  if (args.q.shape[0] == 0) return;
  const View rows = is_mrope(args) ? mrope_rows(launch, args) : look_up(launch, args, make_view(args.positions));
  View q = make_view(args.q);
  const bool has_k = args.k.ndim == 3 && (given(args.k) || launch.counting());
  if (has_k && (launch.counting() || are_neighbours(args.q, args.k))) {
    q.shape[1] += args.k.shape[1];
    return rotate(launch, q, rows, args.rotary_dim, args.style);
  }
  {
    const Launch::Scope scope(launch);
    rotate(launch, q, rows, args.rotary_dim, args.style);
  }
  if (has_k) rotate(launch, make_view(args.k), rows, args.rotary_dim, args.style);
}

}  // namespace turbomind::ascend
