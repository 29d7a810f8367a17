// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm.h"

#include "kernels/simd.h"
#include "kernels/simd_math.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

void fill(GemmKernels&) {}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
