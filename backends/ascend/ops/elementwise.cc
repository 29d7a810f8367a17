// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <limits>

#include "ops.h"

namespace turbomind::ascend {
namespace {

constexpr double kQuickGelu = 1.702;
// GeluV2's approximate; the older aclnnGelu knows the approximation only.
constexpr int64_t kGeluExact = 0;
constexpr int64_t kGeluTanh = 1;

void quick_gelu(Launch& launch, const View& x, const View& out) {
  const Operators& op = library().op;
  const View wide = launch.take(kAclFloat, {x.dim(0), x.dim(1)});
  const View gate = launch.take(kAclFloat, {x.dim(0), x.dim(1)});
  launch.copy(wide, x);
  launch(op.Muls, wide, Number{kQuickGelu}, gate);
  launch(op.Sigmoid, gate, gate);
  launch(op.Mul, wide, gate, out);
}

// Round to nearest even and saturate: the operator's own conversion truncates.
void cast_to_integer(Launch& launch, const View& in, const View& out, double low, double high) {
  const Operators& op = library().op;
  const View wide = launch.take(kAclFloat, {in.dim(0), in.dim(1)});
  launch.copy(wide, in);
  launch(op.Round, wide, wide);
  if (out.type != kAclInt32) {
    launch(op.Clamp, wide, Number{low}, Number{high}, wide);
    return launch(op.Cast, wide, static_cast<int>(out.type), out);
  }
  // The largest int32 is no float32: the largest float32 below stands in and is put right.
  constexpr double kLargestBelow = 2147483520;
  const View bounded = launch.take(kAclFloat, {in.dim(0), in.dim(1)});
  const View beyond = launch.take(kAclBool, {in.dim(0), in.dim(1)});
  launch(op.GtScalar, wide, Number{kLargestBelow}, beyond);
  launch(op.Clamp, wide, Number{low}, Number{kLargestBelow}, bounded);
  launch(op.Cast, bounded, static_cast<int>(out.type), out);
  launch(op.InplaceMaskedFillScalar, out, beyond, Number{high, kAclInt32});
}

bool is_float(AclType type) { return type == kAclFloat || is_16_bit(type); }

// Gate and up side by side in memory, as one product leaves them; out elsewhere. Every row is aligned if the first is,
// so that a row alone is computed as it is among others.
bool is_swiglu(const tm_gated_activation_args& args) {
  const int64_t cols = args.gate.shape[1];
  const auto* gate = static_cast<const std::byte*>(args.gate.data);
  const auto* up = static_cast<const std::byte*>(args.up.data);
  const int64_t bytes = element_bytes(acl_type(args.gate.dtype));
  const auto aligned = [&](const void* data) {
    constexpr int64_t kAlignment = 32;
    return reinterpret_cast<uintptr_t>(data) % kAlignment == 0 && cols * bytes % kAlignment == 0;
  };
  return args.kind == TM_ACTIVATION_SILU && library().op.SwiGlu.available() && up == gate + cols * bytes &&
         args.gate.stride[0] == 2 * cols && args.up.stride[0] == 2 * cols && args.out.data != args.gate.data &&
         args.out.data != args.up.data && args.out.stride[0] == cols && aligned(gate) && aligned(args.out.data);
}

}  // namespace

void activate(Launch& launch, const View& x, tm_activation_kind kind, const View& out) {
  const Operators& op = library().op;
  switch (kind) {
    case TM_ACTIVATION_NONE:
      if (x.data != out.data || launch.counting()) launch.copy(out, x);
      return;
    case TM_ACTIVATION_SILU:
      return launch(op.Silu, x, out);
    case TM_ACTIVATION_GELU_TANH:
      return launch(op.GeluV2, x, kGeluTanh, out);
    case TM_ACTIVATION_GELU_ERF:
      return launch(op.GeluV2, x, kGeluExact, out);
    case TM_ACTIVATION_QUICK_GELU:
      return quick_gelu(launch, x, out);
    case TM_ACTIVATION_RELU:
      return launch(op.Relu, x, out);
    default:
      throw abi::Error(TM_UNSUPPORTED, "tm_activation_kind " + std::to_string(kind));
  }
}

void compose(Launch& launch, const tm_activation_args& args) {
  require_float(args.x, "x");
  if (args.x.shape[0] == 0) return;
  activate(launch, make_view(args.x), args.kind, make_view(args.out));
}

void compose(Launch& launch, const tm_gated_activation_args& args) {
  require_float(args.gate, "gate");
  const int64_t rows = args.gate.shape[0];
  const int64_t cols = args.gate.shape[1];
  if (rows == 0) return;
  const View gate = make_view(args.gate);
  if (!launch.counting() && is_swiglu(args)) {
    return launch(library().op.SwiGlu, make_view(args.gate.data, gate.type, {rows, 2 * cols}), int64_t{-1},
                  make_view(args.out));
  }
  // In float32 until the last rounding.
  const View active = launch.take(kAclFloat, {rows, cols});
  launch.copy(active, gate);
  activate(launch, active, args.kind, active);
  launch(library().op.Mul, active, make_view(args.up), make_view(args.out));
}

void compose(Launch& launch, const tm_add_args& args) {
  require_float(args.a, "a");
  if (args.a.shape[0] == 0) return;
  launch(library().op.Add, make_view(args.a), make_view(args.b), Number{1}, make_view(args.out));
}

void compose(Launch& launch, const tm_softcap_args& args) {
  require_dtype(args.x, TM_F32, "x");
  if (args.x.shape[0] == 0) return;
  const Operators& op = library().op;
  const View out = make_view(args.out);
  launch(op.Muls, make_view(args.x), Number{1.0 / args.cap}, out);
  launch(op.Tanh, out, out);
  launch(op.Muls, out, Number{args.cap}, out);
}

void compose(Launch& launch, const tm_cast_args& args) {
  if (args.in.shape[0] == 0) return;
  const View in = make_view(args.in);
  const View out = make_view(args.out);
  if (!is_float(in.type) || is_float(out.type)) {
    return launch(library().op.Cast, in, static_cast<int>(out.type), out);
  }
  switch (out.type) {
    case kAclInt8:
      return cast_to_integer(launch, in, out, INT8_MIN, INT8_MAX);
    case kAclUint8:
      return cast_to_integer(launch, in, out, 0, UINT8_MAX);
    case kAclInt32:
      return cast_to_integer(launch, in, out, INT32_MIN, INT32_MAX);
    default:
      throw abi::Error(TM_UNSUPPORTED, "cast: float to dtype " + std::to_string(args.out.dtype));
  }
}

}  // namespace turbomind::ascend
