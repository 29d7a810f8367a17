// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

inline constexpr int kMaxExperts = 1024;

// As the ops of the same names; arguments are checked by the caller, experts are at most kMaxExperts.
void launch_moe_route(cudaStream_t stream, const tm_moe_route_args& args);
// counts: scratch, i32 [num_experts].
void launch_moe_permute(cudaStream_t stream, const tm_moe_permute_args& args, int32_t* counts);
void launch_moe_combine(cudaStream_t stream, const tm_moe_combine_args& args);

}  // namespace turbomind::cuda
