// SPDX-License-Identifier: Apache-2.0
#include "kernels/kernel_table.h"

#include "cpu_info.h"

namespace turbomind::cpu {

#define TM_CPU_DECLARE_FILL(type, member) void fill(type&);
#define TM_CPU_DECLARE_ISA(name)                \
  namespace isa_##name {                        \
    TM_CPU_KERNEL_FAMILIES(TM_CPU_DECLARE_FILL) \
  }
TM_CPU_DECLARE_ISA(portable)
#ifdef TM_CPU_HAS_AVX2
TM_CPU_DECLARE_ISA(avx2)
#endif
#ifdef TM_CPU_HAS_AVX512
TM_CPU_DECLARE_ISA(avx512)
#endif
#ifdef TM_CPU_HAS_AVX512BF16
namespace isa_avx512bf16 {
void fill(LinearBf16Kernels&);
void fill(AttentionBf16Kernels&);
}  // namespace isa_avx512bf16
#endif
#ifdef TM_CPU_HAS_AMX
namespace isa_amx {
void fill(LinearBf16Kernels&);
void fill(AttentionBf16Kernels&);
}  // namespace isa_amx
#endif

#define TM_CPU_FILL_MEMBER(type, member) fill(table.member);
#define TM_CPU_FILL_ISA(name)                  \
  {                                            \
    using isa_##name::fill;                    \
    TM_CPU_KERNEL_FAMILIES(TM_CPU_FILL_MEMBER) \
    return table;                              \
  }

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
    case Isa::kAmx:
      return "amx";
  }
  return "unknown";
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas{Isa::kPortable};
#ifdef TM_CPU_HAS_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    isas.push_back(Isa::kAvx2);
  }
#endif
#ifdef TM_CPU_HAS_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni")) {
    isas.push_back(Isa::kAvx512);
#ifdef TM_CPU_HAS_AVX512BF16
    if (__builtin_cpu_supports("avx512bf16")) isas.push_back(Isa::kAvx512Bf16);
#endif
#ifdef TM_CPU_HAS_AMX
    if (may_use_amx()) isas.push_back(Isa::kAmx);
#endif
  }
#endif
  return isas;
}

KernelTable make_kernel_table(Isa isa) {
  KernelTable table{};
  table.isa = isa;
  switch (isa) {
#ifdef TM_CPU_HAS_AMX
    case Isa::kAmx:
      isa_amx::fill(table.linear_bf16);
      isa_amx::fill(table.attention_bf16);
      TM_CPU_FILL_ISA(avx512)
#endif
#ifdef TM_CPU_HAS_AVX512BF16
    case Isa::kAvx512Bf16:
      isa_avx512bf16::fill(table.linear_bf16);
      isa_avx512bf16::fill(table.attention_bf16);
      [[fallthrough]];
#endif
#ifdef TM_CPU_HAS_AVX512
    case Isa::kAvx512:
      TM_CPU_FILL_ISA(avx512)
#endif
#ifdef TM_CPU_HAS_AVX2
    case Isa::kAvx2:
      TM_CPU_FILL_ISA(avx2)
#endif
    default:
      TM_CPU_FILL_ISA(portable)
  }
}

}  // namespace turbomind::cpu
