// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation.cuh"
#include "kernels/elementwise.h"
#include "kernels/launch.cuh"

namespace turbomind::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct Rows {
  T* data;
  int64_t stride;  // elements
};

template <class T>
Rows<T> rows_of(const tm_tensor& tensor) {
  return {static_cast<T*>(tensor.data), tensor.stride[0]};
}

// out[r][c] = op(a[r][c], b[r][c]), N columns per thread.
template <class T, int N, class Op>
__global__ void __launch_bounds__(kThreads)
    map_rows(Rows<const T> a, Rows<const T> b, Rows<T> out, int64_t rows, int64_t cols, Op op) {
  const int64_t col = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (col >= cols) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const auto x = *reinterpret_cast<const Pack<T, N>*>(a.data + row * a.stride + col);
    const auto y = *reinterpret_cast<const Pack<T, N>*>(b.data + row * b.stride + col);
    Pack<T, N> z;
#pragma unroll
    for (int i = 0; i < N; ++i) z.v[i] = from_float<T>(op(to_float(x.v[i]), to_float(y.v[i])));
    *reinterpret_cast<Pack<T, N>*>(out.data + row * out.stride + col) = z;
  }
}

template <class T>
bool takes_vectors(const tm_tensor& tensor) {
  return aligned_to_vector(tensor.data) && tensor.stride[0] % kPerVector<T> == 0 &&
         tensor.shape[1] % kPerVector<T> == 0;
}

template <class T, int N, class Op>
void launch_width(cudaStream_t stream, const tm_tensor& a, const tm_tensor& b, const tm_tensor& out, Op op) {
  const int64_t rows = out.shape[0];
  const int64_t cols = out.shape[1];
  const int64_t chunks = ceil_div<int64_t>(cols, N);
  const int threads = static_cast<int>(chunks < kThreads ? ceil_div<int64_t>(chunks, kWarp) * kWarp : kThreads);
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(chunks, threads)), grid_y(rows));
  launch_kernel("elementwise", stream, grid, static_cast<unsigned>(threads), 0, map_rows<T, N, Op>, rows_of<const T>(a),
                rows_of<const T>(b), rows_of<T>(out), rows, cols, op);
}

template <class Op>
void launch_map(cudaStream_t stream, const tm_tensor& a, const tm_tensor& b, const tm_tensor& out, Op op,
                const char* name) {
  if (out.shape[0] == 0 || out.shape[1] == 0) return;
  dispatch_float(out.dtype, "out", [&](auto zero) {
    using T = decltype(zero);
    if (takes_vectors<T>(a) && takes_vectors<T>(b) && takes_vectors<T>(out)) {
      launch_width<T, kPerVector<T>>(stream, a, b, out, op);
    } else {
      launch_width<T, 1>(stream, a, b, out, op);
    }
  });
  check_launch(name);
}

struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};

struct Activate {
  tm_activation_kind kind;
  __device__ float operator()(float x, float) const { return activate(kind, x); }
};

struct Softcap {
  float cap;
  __device__ float operator()(float x, float) const { return cap * tanhf(x / cap); }
};

struct GatedActivate {
  tm_activation_kind kind;
  __device__ float operator()(float gate, float up) const { return activate(kind, gate) * up; }
};

// ---- cast ----

template <class T>
__device__ double read(const void* data, int64_t i) {
  return static_cast<double>(static_cast<const T*>(data)[i]);
}

__device__ double read_element(const void* data, tm_dtype dtype, int64_t i) {
  switch (dtype) {
    case TM_F32:
      return static_cast<const float*>(data)[i];
    case TM_F16:
      return to_float(static_cast<const __half*>(data)[i]);
    case TM_BF16:
      return to_float(static_cast<const __nv_bfloat16*>(data)[i]);
    case TM_I8:
      return read<int8_t>(data, i);
    case TM_U8:
      return read<uint8_t>(data, i);
    case TM_I32:
      return read<int32_t>(data, i);
    case TM_U32:
      return read<uint32_t>(data, i);
    case TM_I64:
      return read<int64_t>(data, i);
    default:
      return read<uint64_t>(data, i);
  }
}

// Rounds half to even and saturates; NaN becomes 0.
template <class T>
__device__ void write_integer(void* data, int64_t i, double value, double low, double high) {
  static_cast<T*>(data)[i] = isnan(value) ? T{0} : static_cast<T>(fmin(fmax(rint(value), low), high));
}

__device__ void write_element(void* data, tm_dtype dtype, int64_t i, double value) {
  switch (dtype) {
    case TM_F32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case TM_F16:
      static_cast<__half*>(data)[i] = __float2half_rn(static_cast<float>(value));
      return;
    case TM_BF16:
      static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(static_cast<float>(value));
      return;
    case TM_I8:
      return write_integer<int8_t>(data, i, value, -128.0, 127.0);
    case TM_U8:
      return write_integer<uint8_t>(data, i, value, 0.0, 255.0);
    case TM_I32:
      return write_integer<int32_t>(data, i, value, -2147483648.0, 2147483647.0);
    case TM_U32:
      return write_integer<uint32_t>(data, i, value, 0.0, 4294967295.0);
    case TM_I64:  // the conversion itself saturates
      static_cast<int64_t*>(data)[i] = isnan(value) ? 0 : __double2ll_rn(value);
      return;
    default:
      static_cast<uint64_t*>(data)[i] = isnan(value) ? 0 : __double2ull_rn(fmax(value, 0.0));
      return;
  }
}

struct AnyRows {
  void* data;
  int64_t stride;  // elements
  tm_dtype dtype;
};

AnyRows any_rows(const tm_tensor& tensor, const char* argument) {
  if (tensor.dtype == TM_F8_E4M3 || tensor.dtype == TM_F8_E5M2) {
    throw abi::Error(TM_UNSUPPORTED, std::string(argument) + ": cannot cast dtype " + std::to_string(tensor.dtype));
  }
  return {tensor.data, tensor.stride[0], tensor.dtype};
}

__global__ void __launch_bounds__(kThreads) cast_rows(AnyRows in, AnyRows out, int64_t rows, int64_t cols) {
  const int64_t col = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (col >= cols) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const double value = read_element(in.data, in.dtype, row * in.stride + col);
    write_element(out.data, out.dtype, row * out.stride + col, value);
  }
}

template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    cast_vectors(Rows<const From> in, Rows<To> out, int64_t rows, int64_t cols) {
  constexpr int kCount = 8;
  const int64_t col = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kCount;
  if (col >= cols) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const auto x = *reinterpret_cast<const Pack<From, kCount>*>(in.data + row * in.stride + col);
    Pack<To, kCount> y;
#pragma unroll
    for (int i = 0; i < kCount; ++i) y.v[i] = from_float<To>(to_float(x.v[i]));
    *reinterpret_cast<Pack<To, kCount>*>(out.data + row * out.stride + col) = y;
  }
}

bool is_float(tm_dtype dtype) { return dtype == TM_F32 || dtype == TM_F16 || dtype == TM_BF16; }

// Whole vectors of 8 elements, up to 32 bytes.
bool cast_takes_vectors(const tm_tensor& tensor) {
  return is_float(tensor.dtype) && reinterpret_cast<uintptr_t>(tensor.data) % 32 == 0 && tensor.stride[0] % 8 == 0 &&
         tensor.shape[1] % 8 == 0;
}

}  // namespace

void launch_activation(cudaStream_t stream, const tm_activation_args& args) {
  launch_map(stream, args.x, args.x, args.out, Activate{args.kind}, "activation");
}

void launch_gated_activation(cudaStream_t stream, const tm_gated_activation_args& args) {
  launch_map(stream, args.gate, args.up, args.out, GatedActivate{args.kind}, "gated_activation");
}

void launch_add(cudaStream_t stream, const tm_add_args& args) {
  launch_map(stream, args.a, args.b, args.out, Add{}, "add");
}

void launch_softcap(cudaStream_t stream, const tm_softcap_args& args) {
  launch_map(stream, args.x, args.x, args.out, Softcap{args.cap}, "softcap");
}

void launch_cast(cudaStream_t stream, const tm_cast_args& args) {
  const AnyRows in = any_rows(args.in, "in");
  const AnyRows out = any_rows(args.out, "out");
  const int64_t rows = args.in.shape[0];
  const int64_t cols = args.in.shape[1];
  if (rows == 0 || cols == 0) return;
  if (cast_takes_vectors(args.in) && cast_takes_vectors(args.out)) {
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(cols / 8, kThreads)), grid_y(rows));
    dispatch_float(args.in.dtype, "in", [&](auto from) {
      dispatch_float(args.out.dtype, "out", [&](auto to) {
        using From = decltype(from);
        using To = decltype(to);
        cast_vectors<From, To>
            <<<grid, kThreads, 0, stream>>>(rows_of<const From>(args.in), rows_of<To>(args.out), rows, cols);
      });
    });
  } else {
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(cols, kThreads)), grid_y(rows));
    cast_rows<<<grid, kThreads, 0, stream>>>(in, out, rows, cols);
  }
  check_launch("cast");
}

}  // namespace turbomind::cuda
