// SPDX-License-Identifier: Apache-2.0
#include "ops.h"

namespace turbomind::cuda {

void CudaOps::linear(Stream&, const tm_linear_args&, const tm_workspace&) {
  throw abi::Error(TM_UNSUPPORTED, "linear: no kernel");
}

void CudaOps::grouped_linear(Stream&, const tm_grouped_linear_args&, const tm_workspace&) {
  throw abi::Error(TM_UNSUPPORTED, "grouped_linear: no kernel");
}

}  // namespace turbomind::cuda
