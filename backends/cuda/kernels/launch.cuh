// SPDX-License-Identifier: Apache-2.0
//
// Launches that overlap with the end of the kernel before them (CUDA Programming Guide, "Programmatic Dependent
// Launch"; sm_90 and newer, elsewhere plain launches). A kernel launched so calls await_inputs() before it touches
// anything an earlier kernel writes or still reads; what it does before that must rest on constants alone, weights for
// example. Chains are safe, for a kernel ends only after its own wait, so the wait of the next one covers all before.
#pragma once

#include <utility>

#include "kernels/common.cuh"

namespace turbomind::cuda {

// Every thread of the block waits until the kernels before this one have ended and their writes are visible.
__device__ __forceinline__ void await_inputs() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// From here on the next kernel's blocks may take free places; they wait in their await_inputs().
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Of the calling thread's device.
inline bool launches_overlap() {
  int device = 0;
  int major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 9;
}

// kernel<<<grid, threads, shared_bytes, stream>>>(args...), overlapping. Throws abi::Error if it is refused.
template <class... Params, class... Args>
void launch_overlapping(const char* name, cudaStream_t stream, dim3 grid, unsigned threads, size_t shared_bytes,
                        void (*kernel)(Params...), Args&&... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = launches_overlap() ? 1 : 0;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, Params(std::forward<Args>(args))...);
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw abi::Error(TM_DEVICE_ERROR, std::string(name) + ": " + cudaGetErrorString(error));
}

}  // namespace turbomind::cuda
