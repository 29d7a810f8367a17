// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cuda {

// TM_OUT_OF_MEMORY, TM_DEVICE_LOST for errors that end a CUDA context, else TM_DEVICE_ERROR.
tm_status status_of(cudaError_t error);

// Throws abi::Error naming the call, with the status of the error.
void check_cuda(cudaError_t error, const char* call);

}  // namespace turbomind::cuda
