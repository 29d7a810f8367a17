// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "kernels/common.cuh"

namespace turbomind::cuda {

// kernel<<<grid, threads, shared_bytes, stream>>>(args...). Throws abi::Error if it is refused.
template <class... Params, class... Args>
void launch_kernel(const char* name, cudaStream_t stream, dim3 grid, unsigned threads, size_t shared_bytes,
                   void (*kernel)(Params...), Args&&... args) {
  kernel<<<grid, threads, shared_bytes, stream>>>(Params(std::forward<Args>(args))...);
  check_launch(name);
}

}  // namespace turbomind::cuda
