// SPDX-License-Identifier: Apache-2.0
//
// CUDA objects that free themselves.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <type_traits>

namespace turbomind::cuda {

struct FreeDevice {
  void operator()(std::byte* data) const { cudaFree(data); }
};
struct FreePinned {
  void operator()(std::byte* data) const { cudaFreeHost(data); }
};
struct DestroyEvent {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};

using DeviceMemory = std::unique_ptr<std::byte, FreeDevice>;
using PinnedMemory = std::unique_ptr<std::byte, FreePinned>;
using EventHandle = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;

// Throw abi::Error, TM_OUT_OF_MEMORY if that is the reason.
DeviceMemory allocate_device(size_t bytes);
PinnedMemory allocate_pinned(size_t bytes);
EventHandle make_event();
EventHandle make_timing_event();

}  // namespace turbomind::cuda
