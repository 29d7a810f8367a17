// SPDX-License-Identifier: Apache-2.0
#include "cuda_check.h"

#include <string>

namespace turbomind::cuda {

tm_status status_of(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return TM_OUT_OF_MEMORY;
    // After these every call of the process on this device fails the same way.
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorLaunchTimeout:
    case cudaErrorDevicesUnavailable:
    case cudaErrorContextIsDestroyed:
      return TM_DEVICE_LOST;
    default:
      return TM_DEVICE_ERROR;
  }
}

void check_cuda(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that is not fatal is not reported twice
  throw abi::Error(status_of(error),
                   std::string(call) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error));
}

}  // namespace turbomind::cuda
