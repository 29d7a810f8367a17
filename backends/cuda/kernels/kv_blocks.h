// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cuda {

// As the ops and the calls of tm_kv_api of the same names. Block ids travel as kernel arguments, so the host arrays are
// free on return. Throws abi::Error (TM_INVALID_ARGUMENT) for a block outside of the pool.
void launch_kv_copy_blocks(cudaStream_t stream, const tm_kv_copy_blocks_args& args);
void launch_kv_export(cudaStream_t stream, const tm_kv_pool& pool, const int32_t* block_ids, int64_t num_ids,
                      void* dst);
void launch_kv_import(cudaStream_t stream, const tm_kv_pool& pool, const int32_t* block_ids, int64_t num_ids,
                      const void* src);

}  // namespace turbomind::cuda
