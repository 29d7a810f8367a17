// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "kernels/step_view.h"
#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

inline constexpr int kMaxRopeHeadDim = 512;

// As the ops of the same names; arguments are checked by the caller, head sizes are at most kMaxRopeHeadDim.
void launch_rope(cudaStream_t stream, const tm_rope_args& args);
void launch_kv_write(cudaStream_t stream, const tm_kv_write_args& args, const StepView& step);
void launch_qk_norm_rope_kv_write(cudaStream_t stream, const tm_qk_norm_rope_kv_write_args& args, const StepView& step);

}  // namespace turbomind::cuda
