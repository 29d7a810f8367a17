// SPDX-License-Identifier: Apache-2.0
//
// A vector of kLanes floats for the instruction set being compiled: the same kernel source serves all of them.
// Included by kernels/*.cc only.
//
// Everything here lives in TM_ISA_NAMESPACE and is always inlined. A kernel source must keep to that: a plain inline
// function or a standard template that is emitted out of line would be merged by the linker across instruction sets,
// and a processor without AVX-512 could then run the AVX-512 copy.
//
// Each simd_<isa>.h defines Vec, Mask, kLanes and
//   zero() set(x)                       load(p) load(p, count) store(p, v) store(p, v, count)
//     p: float, Bf16, F16 or int8_t (loads also uint8_t); lanes from `count` on read as 0 and are not written, their
//     memory is not touched; stores round to nearest even, int8_t saturates
//   + - * / and unary -                 fma(a, b, c) = a * b + c, one rounding where the hardware has it
//   min max abs sqrt round (half to even)
//   less(a, b) equal(a, b) -> Mask      select(mask, if_true, if_false) all(mask) mask_bits(mask): bit i = lane i
//   lanes_of(bits): the inverse of mask_bits, for the lowest kLanes bits
//   scale_by_power(x, n) = x * 2^n      n whole, |n| <= 252
//   sum(v) max_lane(v)                  fixed order: neighbours at distance kLanes/2, then /4, and so on
#pragma once

#include "dtype.h"

#define TM_INLINE [[gnu::always_inline]] inline
#define TM_INLINE_LAMBDA __attribute__((always_inline))

#if defined(TM_ISA_AVX512) || defined(TM_ISA_AVX512BF16) || defined(TM_ISA_AMX)
#include "kernels/simd_avx512.h"
#elif defined(TM_ISA_AVX2)
#include "kernels/simd_avx2.h"
#else
#include "kernels/simd_portable.h"
#endif
