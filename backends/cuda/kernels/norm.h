// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

// As the ops of the same names; arguments are checked by the caller.
void launch_rms_norm(cudaStream_t stream, const tm_rms_norm_args& args);
void launch_layer_norm(cudaStream_t stream, const tm_layer_norm_args& args);
void launch_add_rms_norm(cudaStream_t stream, const tm_add_rms_norm_args& args);

}  // namespace turbomind::cuda
