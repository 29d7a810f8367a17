// SPDX-License-Identifier: Apache-2.0
//
// Tensor core instructions of sm_90a: a warpgroup (four warps) multiplies tiles in shared memory, asynchronously. PTX
// ISA 8.x, "Asynchronous Warpgroup Level Matrix Instructions".
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace turbomind::cuda {

inline constexpr int kWarpgroup = 128;
inline constexpr uint32_t kSwizzleAtomBytes = 1024;  // 8 rows of 128 bytes

// Describes an operand in panels of 128 bytes with the 128-byte swizzle, 8-row groups following one another. Operands
// whose contiguous dimension is the one multiplied over (Q, K) need no panel stride: their steps stay inside a panel.
// Those with the other one contiguous (V) span panels that lie panel_bytes apart.
__device__ __forceinline__ uint64_t operand(uint32_t address, uint32_t panel_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  const auto field = [](uint32_t bytes) { return static_cast<uint64_t>((bytes & 0x3FFFFu) >> 4); };
  return kSwizzle128 | field(kSwizzleAtomBytes) << 32 | field(panel_bytes) << 16 | field(address);
}

// The operand `bytes` (a multiple of 16) further on.
__device__ __forceinline__ uint64_t operand_at(uint64_t operand, uint32_t bytes) { return operand + (bytes >> 4); }

// A value that is the same in all lanes, which the compiler cannot know.
__device__ __forceinline__ uint32_t uniform(uint32_t value) { return __shfl_sync(~0u, value, 0); }

// Registers written before are seen by the products issued after.
__device__ __forceinline__ void fence_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// Keeps the compiler from moving register arrays while products in flight use them.
template <class R, int N>
__device__ __forceinline__ void pin_registers(R (&r)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if constexpr (std::is_same_v<R, float>) {
      asm volatile("" : "+f"(r[i])::"memory");
    } else {
      asm volatile("" : "+r"(r[i])::"memory");
    }
  }
}

#define TM_F4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define TM_F16(d, i) TM_F4(d, i), TM_F4(d, i + 4), TM_F4(d, i + 8), TM_F4(d, i + 12)
#define TM_F32(d) TM_F16(d, 0), TM_F16(d, 16)
#define TM_F64(d) TM_F16(d, 0), TM_F16(d, 16), TM_F16(d, 32), TM_F16(d, 48)
#define TM_F128(d) TM_F64(d), TM_F16(d, 64), TM_F16(d, 80), TM_F16(d, 96), TM_F16(d, 112)
#define TM_REGISTERS_32                                                                                     \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27," \
  "%28,%29,%30,%31}"
#define TM_REGISTERS_64                                                                                      \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,"  \
  "%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
  "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"
#define TM_REGISTERS_128                                                                                     \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,"  \
  "%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
  "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79," \
  "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,"     \
  "%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,"     \
  "%124,%125,%126,%127}"

// d[64 x N] (+)= a[64 x 16] * b[N x 16]^T, both in shared memory; accumulate = 0: d is overwritten.
#define TM_PRODUCT_SHARED(type, n, registers, outputs, a_at, b_at, flag_at)                             \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" flag_at ", 0;\nwgmma.mma_async.sync.aligned.m64n" n \
               "k16.f32." type "." type " " registers ", %" a_at ", %" b_at ", p, 1, 1, 0, 0;\n}\n"     \
               : outputs                                                                                \
               : "l"(a), "l"(b), "r"(accumulate))

template <class T>
__device__ __forceinline__ void multiply_shared(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
  if constexpr (std::is_same_v<T, __half>) {
    TM_PRODUCT_SHARED("f16", "128", TM_REGISTERS_64, TM_F64(d), "64", "65", "66");
  } else {
    TM_PRODUCT_SHARED("bf16", "128", TM_REGISTERS_64, TM_F64(d), "64", "65", "66");
  }
}

template <class T>
__device__ __forceinline__ void multiply_shared(float (&d)[32], uint64_t a, uint64_t b, int accumulate) {
  if constexpr (std::is_same_v<T, __half>) {
    TM_PRODUCT_SHARED("f16", "64", TM_REGISTERS_32, TM_F32(d), "32", "33", "34");
  } else {
    TM_PRODUCT_SHARED("bf16", "64", TM_REGISTERS_32, TM_F32(d), "32", "33", "34");
  }
}

template <class T>
__device__ __forceinline__ void multiply_shared(float (&d)[128], uint64_t a, uint64_t b, int accumulate) {
  if constexpr (std::is_same_v<T, __half>) {
    TM_PRODUCT_SHARED("f16", "256", TM_REGISTERS_128, TM_F128(d), "128", "129", "130");
  } else {
    TM_PRODUCT_SHARED("bf16", "256", TM_REGISTERS_128, TM_F128(d), "128", "129", "130");
  }
}

// d[64 x N] += a[64 x 16] * b[16 x N], a in registers, b's N contiguous in shared memory.
#define TM_PRODUCT_REGISTERS(type, n, registers, outputs, a0, a1, a2, a3, b_at)                                       \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " " registers ", {%" a0 ",%" a1 ",%" a2 \
               ",%" a3 "}, %" b_at ", 1, 1, 1, 1;\n"                                                                  \
               : outputs                                                                                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

template <class T>
__device__ __forceinline__ void multiply_registers(float (&d)[64], const uint32_t* a, uint64_t b) {
  if constexpr (std::is_same_v<T, __half>) {
    TM_PRODUCT_REGISTERS("f16", "128", TM_REGISTERS_64, TM_F64(d), "64", "65", "66", "67", "68");
  } else {
    TM_PRODUCT_REGISTERS("bf16", "128", TM_REGISTERS_64, TM_F64(d), "64", "65", "66", "67", "68");
  }
}

template <class T>
__device__ __forceinline__ void multiply_registers(float (&d)[32], const uint32_t* a, uint64_t b) {
  if constexpr (std::is_same_v<T, __half>) {
    TM_PRODUCT_REGISTERS("f16", "64", TM_REGISTERS_32, TM_F32(d), "32", "33", "34", "35", "36");
  } else {
    TM_PRODUCT_REGISTERS("bf16", "64", TM_REGISTERS_32, TM_F32(d), "32", "33", "34", "35", "36");
  }
}

#undef TM_PRODUCT_REGISTERS
#undef TM_PRODUCT_SHARED
#undef TM_REGISTERS_128
#undef TM_REGISTERS_64
#undef TM_REGISTERS_32
#undef TM_F128
#undef TM_F64
#undef TM_F32
#undef TM_F16
#undef TM_F4

// ---- barriers and copies ----

// An mbarrier: phases end when `count` threads arrived and all announced bytes came.
class Barrier {
 public:
  __device__ void init(int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(address()), "r"(count) : "memory");
  }
  __device__ void arrive() { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(address()) : "memory"); }
  __device__ void arrive_and_expect(uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(address()), "r"(bytes) : "memory");
  }
  // Waits for the end of the phase with this parity: the first phase has 0. Waiting for 1 on a new barrier returns.
  __device__ void wait(uint32_t parity) {
    uint32_t done = 0;
    while (!done) {
      asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
                   : "=r"(done)
                   : "r"(address()), "r"(parity)
                   : "memory");
    }
  }
  // Copies bytes (a multiple of 16) from device to shared memory; their arrival counts here.
  __device__ void copy(uint32_t to, const void* from, uint32_t bytes) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(address())
                 : "memory");
  }

 private:
  __device__ uint32_t address() const { return static_cast<uint32_t>(__cvta_generic_to_shared(&state_)); }

  uint64_t state_;
};

// A stage of a ring of buffers and the parity of its barriers.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void fence_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}
// Orders this thread's ordinary accesses to shared memory before those of tensor cores and copies issued later.
__device__ __forceinline__ void fence_shared() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

// Named barriers of a block; `threads` of it take part.
__device__ __forceinline__ void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void arrive_threads(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}

}  // namespace turbomind::cuda
