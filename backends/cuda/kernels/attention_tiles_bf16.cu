// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_tiles_launch.cuh"

namespace turbomind::cuda {

template void launch_paged_tiles<__nv_bfloat16>(cudaStream_t, const TileCall&, const PagedKv&, const Partials&);
template void launch_dense_tiles<__nv_bfloat16>(cudaStream_t, const TileCall&, const DenseKv&);

}  // namespace turbomind::cuda
