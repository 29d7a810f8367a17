// SPDX-License-Identifier: Apache-2.0
//
// Dense matrix products by cuBLASLt. Which of its kernels takes a shape is measured when the shape is first met, and
// kept.
#pragma once

#include <cublasLt.h>

#include <compare>
#include <map>
#include <mutex>
#include <vector>

#include "owned.h"
#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

// out[rows, n] = x[rows, k] * w[n, k]^T, summed in float32; all row-major, strides in elements.
struct GemmArgs {
  const void* x;
  const void* w;
  void* out;
  int64_t rows;
  int64_t n;
  int64_t k;
  int64_t x_stride;
  int64_t w_stride;
  int64_t out_stride;
  tm_dtype dtype;      // of x and w
  tm_dtype out_dtype;  // that, or float32
  void* workspace;     // kWorkspaceBytes
};

class Gemm {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  // deterministic: one kernel per (n, k), without split sums, for every number of rows, so that a row's bits do not
  // depend on how many there are.
  explicit Gemm(bool deterministic);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  // Throws abi::Error (TM_UNSUPPORTED) if no kernel takes the shape.
  void run(cudaStream_t stream, const GemmArgs& args);

 private:
  // What a choice of kernel depends on.
  struct Key {
    int64_t rows, n, k;
    int x_alignment, w_alignment, out_alignment;  // bytes, of the addresses and of every row
    tm_dtype dtype, out_dtype;
    auto operator<=>(const Key&) const = default;
  };

  Key key_of(const GemmArgs& args) const;
  // Kernels that take the shape, the likeliest first; at least one.
  std::vector<cublasLtMatmulAlgo_t> candidates(const GemmArgs& args, const Key& key) const;
  // The fastest of them on these arguments.
  cublasLtMatmulAlgo_t measure(cudaStream_t stream, const GemmArgs& args,
                               const std::vector<cublasLtMatmulAlgo_t>& candidates) const;
  // Infinity where it does not take the arguments.
  float milliseconds(cudaStream_t stream, const GemmArgs& args, const cublasLtMatmulAlgo_t& algo) const;
  cublasLtMatmulAlgo_t choice(cudaStream_t stream, const GemmArgs& args);

  cublasLtHandle_t handle_ = nullptr;
  bool deterministic_;
  EventHandle begin_;
  EventHandle end_;
  std::mutex mutex_;  // guards choices_
  std::map<Key, cublasLtMatmulAlgo_t> choices_;
};

}  // namespace turbomind::cuda
