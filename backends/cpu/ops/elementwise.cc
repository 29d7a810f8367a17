// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "ops.h"
#include "ops/row_ranges.h"
#include "ops/tensor_args.h"
#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cpu {
namespace {

constexpr int64_t kActivationCost = 4;  // element operations

void require_kind(tm_activation_kind kind) {
  require(kind >= TM_ACTIVATION_NONE && kind <= TM_ACTIVATION_RELU, "kind",
          "a tm_activation_kind, found " + std::to_string(static_cast<int>(kind)));
}

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
    case TM_I64:
      return static_cast<double>(static_cast<const int64_t*>(data)[i]);
    case TM_U64:
      return static_cast<double>(static_cast<const uint64_t*>(data)[i]);
    default:
      return 0;
  }
}

// Rounds half to even and saturates; NaN becomes 0.
template <class T>
T to_integer(double value) {
  if (std::isnan(value)) return 0;
  const double rounded = std::nearbyint(value);
  if (rounded <= static_cast<double>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  if (rounded >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  return static_cast<T>(rounded);
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
    case TM_I64:
      static_cast<int64_t*>(data)[i] = to_integer<int64_t>(value);
      return;
    case TM_U64:
      static_cast<uint64_t*>(data)[i] = to_integer<uint64_t>(value);
      return;
    default:
      return;
  }
}

// Rows of any dtype.
struct RawRows {
  std::byte* data;
  int64_t stride;  // bytes
  tm_dtype dtype;

  std::byte* row(int64_t index) const { return data + index * stride; }
};

RawRows raw_rows(const tm_tensor& tensor, const char* argument) {
  require(tensor.ndim == 2, argument, "2 dimensions, found " + std::to_string(tensor.ndim));
  if (tensor.dtype == TM_F8_E4M3 || tensor.dtype == TM_F8_E5M2 || abi::dtype_bytes(tensor.dtype) == 0) {
    throw abi::Error(TM_UNSUPPORTED, std::string(argument) + ": cannot cast dtype " + std::to_string(tensor.dtype));
  }
  return {static_cast<std::byte*>(tensor.data), tensor.stride[0] * abi::dtype_bytes(tensor.dtype), tensor.dtype};
}

bool has_vector_conversion(tm_dtype dtype) { return dtype == TM_F32 || dtype == TM_F16 || dtype == TM_BF16; }

}  // namespace

void CpuOps::activation(Stream& stream, const tm_activation_args& args, const tm_workspace&) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  require_kind(args.kind);
  const auto kernel = stream.kernels().elementwise.activation;
  for_row_ranges(stream.pool(), x.rows, kActivationCost * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) kernel(args.kind, x.row(row), x.cols, out.row(row));
  });
}

void CpuOps::gated_activation(Stream& stream, const tm_gated_activation_args& args, const tm_workspace&) {
  const Matrix<float> gate = matrix_arg<float>(args.gate, "gate");
  const Matrix<float> up = matrix_arg<float>(args.up, "up");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  require_kind(args.kind);
  const auto kernel = stream.kernels().elementwise.gated_activation;
  for_row_ranges(stream.pool(), gate.rows, kActivationCost * gate.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      kernel(args.kind, gate.row(row), up.row(row), gate.cols, out.row(row));
    }
  });
}

void CpuOps::softcap(Stream& stream, const tm_softcap_args& args, const tm_workspace&) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  require(args.cap > 0, "cap", "a cap > 0, found " + std::to_string(args.cap));
  const auto kernel = stream.kernels().elementwise.softcap;
  for_row_ranges(stream.pool(), x.rows, kActivationCost * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) kernel(x.row(row), args.cap, x.cols, out.row(row));
  });
}

void CpuOps::add(Stream& stream, const tm_add_args& args, const tm_workspace&) {
  const Matrix<float> a = matrix_arg<float>(args.a, "a");
  const Matrix<float> b = matrix_arg<float>(args.b, "b");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  const auto kernel = stream.kernels().elementwise.add;
  for_row_ranges(stream.pool(), a.rows, a.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) kernel(a.row(row), b.row(row), a.cols, out.row(row));
  });
}

void CpuOps::cast(Stream& stream, const tm_cast_args& args, const tm_workspace&) {
  const RawRows in = raw_rows(args.in, "in");
  const RawRows out = raw_rows(args.out, "out");
  const int64_t cols = args.in.shape[1];
  const auto convert = has_vector_conversion(in.dtype) && has_vector_conversion(out.dtype)
                           ? stream.kernels().elementwise.convert[in.dtype][out.dtype]
                           : nullptr;
  for_row_ranges(stream.pool(), args.in.shape[0], cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (convert) {
        convert(in.row(row), cols, out.row(row));
        continue;
      }
      for (int64_t i = 0; i < cols; ++i)
        write_element(out.row(row), out.dtype, i, read_element(in.row(row), in.dtype, i));
    }
  });
}

}  // namespace turbomind::cpu
