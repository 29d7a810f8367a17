// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

// What follows a matrix product: out = activation(out + bias).
struct Epilogue {
  const float* bias;  // f32 [n]; nullptr: none
  tm_activation_kind activation;
};

// out[rows, n] = epilogue(x[rows, k] * w[n, k]^T); strides in elements.
struct LinearShape {
  int64_t rows;
  int64_t n;
  int64_t k;
  int64_t x_stride;
  int64_t w_stride;
  int64_t out_stride;
};

inline constexpr int64_t kMaxNarrowRows = 16;

// At most kMaxNarrowRows rows of a 16-bit dtype; bound by the bytes of w. k, all addresses and row strides of x and w
// are multiples of 16 bytes.
void launch_narrow_linear(cudaStream_t stream, const LinearShape& shape, const void* x, const void* w, void* out,
                          tm_dtype dtype, tm_dtype out_dtype, const Epilogue& epilogue, int num_sms);

struct GatedWeights {
  const void* gate;
  const void* up;
  const float* gate_bias;  // f32 [n]; nullptr: none
  const float* up_bias;
};

// out = activation(x * gate^T + gate_bias) * (x * up^T + up_bias); as above.
void launch_narrow_gated_linear(cudaStream_t stream, const LinearShape& shape, const void* x, const GatedWeights& w,
                                void* out, tm_dtype dtype, tm_activation_kind activation, int num_sms);

inline constexpr int64_t kMinWideRows = 3072;  // below, cuBLASLt's smaller tiles fill the device better

// The same for at least kMinWideRows rows on sm_90; bound by arithmetic. Without biases, SiLU or tanh GELU; n is a
// multiple of 8, and so are addresses and row strides of out.
void launch_wide_gated_linear(cudaStream_t stream, const LinearShape& shape, const void* x, const GatedWeights& w,
                              void* out, tm_dtype dtype, tm_activation_kind kind, int num_sms);

// In place on [rows, n] with rows `stride` elements apart.
void launch_linear_epilogue(cudaStream_t stream, void* out, tm_dtype dtype, int64_t rows, int64_t n, int64_t stride,
                            const Epilogue& epilogue);

// Rows offsets[e] .. offsets[e + 1] of x meet the n rows of w from e * n on. A row's bits depend on nothing else.
void launch_grouped_linear(cudaStream_t stream, const LinearShape& shape, const void* x, const void* w, void* out,
                           tm_dtype dtype, const int32_t* offsets, int32_t num_experts);

}  // namespace turbomind::cuda
