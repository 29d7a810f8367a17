// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "ops.h"
#include "ops/row_loop.h"

namespace turbomind::cpu {
namespace {

bool is_float(tm_dtype dtype) { return dtype == TM_F32 || dtype == TM_F16 || dtype == TM_BF16 || dtype == TM_I8; }

double read_element(const void* data, tm_dtype dtype, int64_t i) {
  switch (dtype) {
    case TM_F32:
      return static_cast<const float*>(data)[i];
    case TM_F16:
      return to_float(static_cast<const F16*>(data)[i]);
    case TM_BF16:
      return to_float(static_cast<const Bf16*>(data)[i]);
    case TM_I8:
      return static_cast<const int8_t*>(data)[i];
    case TM_U8:
      return static_cast<const uint8_t*>(data)[i];
    case TM_I32:
      return static_cast<const int32_t*>(data)[i];
    case TM_U32:
      return static_cast<const uint32_t*>(data)[i];
    default:
      throw abi::Error(TM_UNSUPPORTED, "in: cannot cast from dtype " + std::to_string(dtype));
  }
}

// Rounds half to even and saturates; NaN becomes 0.
template <class T>
T to_integer(double value) {
  if (std::isnan(value)) return 0;
  const double low = static_cast<double>(std::numeric_limits<T>::min());
  const double high = static_cast<double>(std::numeric_limits<T>::max());
  const double rounded = std::nearbyint(value);
  return static_cast<T>(rounded < low ? low : (rounded > high ? high : rounded));
}

void write_element(void* data, tm_dtype dtype, int64_t i, double value) {
  switch (dtype) {
    case TM_F32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case TM_F16:
      static_cast<F16*>(data)[i] = to_f16(static_cast<float>(value));
      return;
    case TM_BF16:
      static_cast<Bf16*>(data)[i] = to_bf16(static_cast<float>(value));
      return;
    case TM_I8:
      static_cast<int8_t*>(data)[i] = to_integer<int8_t>(value);
      return;
    case TM_U8:
      static_cast<uint8_t*>(data)[i] = to_integer<uint8_t>(value);
      return;
    case TM_I32:
      static_cast<int32_t*>(data)[i] = to_integer<int32_t>(value);
      return;
    case TM_U32:
      static_cast<uint32_t*>(data)[i] = to_integer<uint32_t>(value);
      return;
    default:
      throw abi::Error(TM_UNSUPPORTED, "out: cannot cast to dtype " + std::to_string(dtype));
  }
}

}  // namespace

void CpuOps::activation(Stream& stream, const tm_activation_args& args, const tm_workspace&) {
  const Rows x = rows_arg(args.x, "x");
  const Rows out = rows_arg(args.out, "out");
  const ElementwiseKernels& kernels = stream.kernels().elementwise;
  for_rows(stream, x.outer * x.inner, x.cols,
           [&](int64_t i) { kernels.activation(args.kind, x.row(i), x.cols, out.row(i)); });
}

void CpuOps::gated_activation(Stream& stream, const tm_gated_activation_args& args, const tm_workspace&) {
  const Rows gate = rows_arg(args.gate, "gate");
  const Rows up = rows_arg(args.up, "up");
  const Rows out = rows_arg(args.out, "out");
  const ElementwiseKernels& kernels = stream.kernels().elementwise;
  for_rows(stream, gate.outer * gate.inner, gate.cols,
           [&](int64_t i) { kernels.gated_activation(args.kind, gate.row(i), up.row(i), gate.cols, out.row(i)); });
}

void CpuOps::add(Stream& stream, const tm_add_args& args, const tm_workspace&) {
  const Rows a = rows_arg(args.a, "a");
  const Rows b = rows_arg(args.b, "b");
  const Rows out = rows_arg(args.out, "out");
  const ElementwiseKernels& kernels = stream.kernels().elementwise;
  for_rows(stream, a.outer * a.inner, a.cols, [&](int64_t i) { kernels.add(a.row(i), b.row(i), a.cols, out.row(i)); });
}

void CpuOps::cast(Stream& stream, const tm_cast_args& args, const tm_workspace&) {
  const tm_tensor& in = args.in;
  const tm_tensor& out = args.out;
  const auto* from = static_cast<const uint8_t*>(in.data);
  auto* to = static_cast<uint8_t*>(out.data);
  const int64_t in_stride = in.stride[0] * static_cast<int64_t>(dtype_bytes(in.dtype));
  const int64_t out_stride = out.stride[0] * static_cast<int64_t>(dtype_bytes(out.dtype));
  const int64_t cols = in.shape[1];
  const bool vectors = is_float(in.dtype) && is_float(out.dtype) && out.dtype != TM_I8;
  for_rows(stream, in.shape[0], cols, [&](int64_t row) {
    const uint8_t* source = from + row * in_stride;
    uint8_t* target = to + row * out_stride;
    if (vectors) return stream.kernels().elementwise.convert(source, in.dtype, cols, target, out.dtype);
    for (int64_t i = 0; i < cols; ++i) write_element(target, out.dtype, i, read_element(source, in.dtype, i));
  });
}

}  // namespace turbomind::cpu
