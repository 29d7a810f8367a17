// SPDX-License-Identifier: Apache-2.0
//
// The plug-in's one exported symbol.
#include "comm.h"
#include "ops.h"
#include "plan.h"
#include "stream.h"
#include "weight.h"

namespace turbomind::cuda {
namespace {

std::string reason_not_usable() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return std::string("no CUDA device: ") + cudaGetErrorString(error);
  }
  return count > 0 ? std::string() : "no CUDA device";
}

}  // namespace

struct Backend {
  static constexpr const char* kName = "cuda";
  static constexpr const char* kVersion = "0.1.0";
  static std::string probe() { return reason_not_usable(); }
  static int32_t device_count() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) cudaGetLastError();
    return count;
  }

  using Context = cuda::Context;
  using Stream = cuda::Stream;
  using Event = cuda::Event;
  using Weight = cuda::Weight;
  using Plan = cuda::Plan;
  using Graph = cuda::Graph;
  using Comm = cuda::Comm;
  using Ops = CudaOps;
};

}  // namespace turbomind::cuda

TM_EXPORT_BACKEND(turbomind::cuda::Backend)
