// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

// As the ops of the same names; arguments are checked by the caller.
void launch_gather_rows(cudaStream_t stream, const tm_gather_rows_args& args);
void launch_scatter_rows(cudaStream_t stream, const tm_scatter_rows_args& args);

// The rows of an embedding: [rows, cols] of float32, float16 or bfloat16, row-major.
struct EmbeddingTable {
  const void* data;
  tm_dtype dtype;
  int64_t rows;
  int64_t cols;
  int64_t stride;  // elements
};
void launch_embedding(cudaStream_t stream, const tm_embedding_args& args, const EmbeddingTable& table);

}  // namespace turbomind::cuda
