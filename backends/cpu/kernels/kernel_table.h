// SPDX-License-Identifier: Apache-2.0
//
// The kernels of one instruction set. Each family is one header with a struct of function pointers, and one source that
// is compiled once per instruction set inside namespace TM_ISA_NAMESPACE, where it defines `void fill(Family&)`.
#pragma once

#include <string_view>
#include <vector>

#include "kernels/attention.h"
#include "kernels/attention_bf16.h"
#include "kernels/elementwise.h"
#include "kernels/kv.h"
#include "kernels/linear_bf16.h"
#include "kernels/linear_expanded.h"
#include "kernels/linear_float.h"
#include "kernels/linear_int8.h"
#include "kernels/logits.h"
#include "kernels/norm.h"
#include "kernels/quantize.h"
#include "kernels/rope.h"

// X(type, member): a new family is one line here, and its name in CMakeLists.txt.
#define TM_CPU_KERNEL_FAMILIES(X)           \
  X(AttentionKernels, attention)            \
  X(ElementwiseKernels, elementwise)        \
  X(KvKernels, kv)                          \
  X(LinearExpandedKernels, linear_expanded) \
  X(LinearFloatKernels, linear_float)       \
  X(LinearInt8Kernels, linear_int8)         \
  X(LogitsKernels, logits)                  \
  X(NormKernels, norm)                      \
  X(QuantizeKernels, quantize)              \
  X(RopeKernels, rope)

namespace turbomind::cpu {

enum class Isa { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmx };  // ascending

struct KernelTable {
  Isa isa;
#define TM_CPU_FAMILY_MEMBER(type, member) type member;
  TM_CPU_KERNEL_FAMILIES(TM_CPU_FAMILY_MEMBER)
#undef TM_CPU_FAMILY_MEMBER
  // What AVX512_BF16 and AMX have of their own; their other kernels are those of AVX-512.
  LinearBf16Kernels linear_bf16;        // empty below Isa::kAvx512Bf16
  AttentionBf16Kernels attention_bf16;  // likewise
};

std::string_view isa_name(Isa isa);

// What was compiled in and this processor has, ascending; never empty.
std::vector<Isa> available_isas();

KernelTable make_kernel_table(Isa isa);

}  // namespace turbomind::cpu
