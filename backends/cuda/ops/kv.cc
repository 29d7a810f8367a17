// SPDX-License-Identifier: Apache-2.0
#include "kernels/kv_blocks.h"
#include "ops.h"

namespace turbomind::cuda {

void CudaOps::kv_copy_blocks(Stream& stream, const tm_kv_copy_blocks_args& args, const tm_workspace&) {
  launch_kv_copy_blocks(stream.handle(), args);
}

void CudaOps::kv_export(Stream& stream, const tm_kv_pool& pool, const int32_t* block_ids, int64_t num_ids, void* dst) {
  launch_kv_export(stream.handle(), pool, block_ids, num_ids, dst);
}

void CudaOps::kv_import(Stream& stream, const tm_kv_pool& pool, const int32_t* block_ids, int64_t num_ids,
                        const void* src) {
  launch_kv_import(stream.handle(), pool, block_ids, num_ids, src);
}

}  // namespace turbomind::cuda
