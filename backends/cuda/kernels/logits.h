// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

// As the ops of the same names; arguments are checked by the caller.
void launch_logits_process(cudaStream_t stream, const tm_logits_process_args& args);
void launch_sample(cudaStream_t stream, const tm_sample_args& args);
void launch_logprobs(cudaStream_t stream, const tm_logprobs_args& args);

}  // namespace turbomind::cuda
