// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

struct ConvertSource {
  const void* data;  // [rows, stride] of float32, float16 or bfloat16
  tm_dtype dtype;
  int64_t rows;
  int64_t cols;
  int64_t stride;  // elements
};

struct ConvertTarget {
  void* data;  // [rows, stride]; columns past the source's become zeros
  tm_dtype dtype;
  int64_t stride;
};

void launch_convert_rows(cudaStream_t stream, const ConvertSource& from, const ConvertTarget& to);

}  // namespace turbomind::cuda
