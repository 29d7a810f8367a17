// SPDX-License-Identifier: Apache-2.0
#include "owned.h"

#include "cuda_check.h"

namespace turbomind::cuda {

DeviceMemory allocate_device(size_t bytes) {
  void* data = nullptr;
  check_cuda(cudaMalloc(&data, bytes), "cudaMalloc");
  return DeviceMemory(static_cast<std::byte*>(data));
}

PinnedMemory allocate_pinned(size_t bytes) {
  void* data = nullptr;
  check_cuda(cudaMallocHost(&data, bytes), "cudaMallocHost");
  return PinnedMemory(static_cast<std::byte*>(data));
}

EventHandle make_event() {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  return EventHandle(event);
}

EventHandle make_timing_event() {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreate(&event), "cudaEventCreate");
  return EventHandle(event);
}

}  // namespace turbomind::cuda
