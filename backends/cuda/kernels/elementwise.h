// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

// As the ops of the same names; arguments are checked by the caller.
void launch_activation(cudaStream_t stream, const tm_activation_args& args);
void launch_gated_activation(cudaStream_t stream, const tm_gated_activation_args& args);
void launch_add(cudaStream_t stream, const tm_add_args& args);
void launch_softcap(cudaStream_t stream, const tm_softcap_args& args);
// Throws abi::Error (TM_UNSUPPORTED) for 8-bit float dtypes.
void launch_cast(cudaStream_t stream, const tm_cast_args& args);

}  // namespace turbomind::cuda
