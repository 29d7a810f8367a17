// SPDX-License-Identifier: Apache-2.0
//
// The integer side of a panel, per instruction set, and Rows: one float for each of a panel's 16 rows.
//
//   Codes                 64 bytes: 16 rows x 4 k          Sums    16 int32, one per row       Quad    4 activations of
//   one
//                                                                                              token, repeated for
//                                                                                              every row
//   load_codes(p) mask(codes, byte) merge(low, high, byte) = low | (high & byte)
//   shift_left<n> shift_right<n>      bits may cross byte borders: mask afterwards
//   load_quad(p) set_sums(x) shift_sums_left<n>(sums)
//   Dot<bits> .sums add<n>(codes, quad)   adds the dot products of the 4 k, as the n-th of a group's 8 quads (of 4 with
//                                     6 bits), each once and in order; exact at the last one. With bits == 8 and
//                                     kSignedBytes the codes count as signed after flipping their top bit: 128 less
//   byte_of_lane<j>(codes) -> Sums    k = j of the quad
//   bits_of_lane(codes, shift, mask) -> Sums = (lane >> shift) & mask        or_shifted(low, high, n) = low | (high <<
//   n) first_bf16(codes, part) second_bf16(codes, part) -> Vec    of 16 rows x 2 bfloat16; part: which kLanes rows
//   Bytes                 32 int8 in k order
//   round_to_bytes(vecs) -> Bytes     of 32 / kLanes vectors within [-128, 127], half to even
//   store_bytes(p, bytes) sum_halves(bytes) -> HalfSums, of the first and the last 16
#pragma once

#include "kernels/panels.h"
#include "kernels/simd.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

struct HalfSums {
  int32_t first;
  int32_t second;
};

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE

#if defined(TM_ISA_AVX512) || defined(TM_ISA_AVX512BF16) || defined(TM_ISA_AMX)
#include "kernels/rows_avx512.h"
#elif defined(TM_ISA_AVX2)
#include "kernels/rows_avx2.h"
#else
#include "kernels/rows_portable.h"
#endif

namespace turbomind::cpu::TM_ISA_NAMESPACE {

inline constexpr int kVecsPerRows = kPanelRows / kLanes;

struct Rows {
  Vec v[kVecsPerRows];
};

template <class Fn>
TM_INLINE Rows make_rows(Fn&& part) {
  Rows out;
#pragma GCC unroll 4
  for (int i = 0; i < kVecsPerRows; ++i) out.v[i] = part(i);
  return out;
}

TM_INLINE Rows set_rows(float x) {
  return make_rows([&](int) TM_INLINE_LAMBDA { return set(x); });
}
template <class T>
TM_INLINE Rows load_rows(const T* p) {
  return make_rows([&](int i) TM_INLINE_LAMBDA { return load(p + i * kLanes); });
}
TM_INLINE void store_rows(float* p, const Rows& a) {
#pragma GCC unroll 4
  for (int i = 0; i < kVecsPerRows; ++i) store(p + i * kLanes, a.v[i]);
}
TM_INLINE Rows operator*(const Rows& a, const Rows& b) {
  return make_rows([&](int i) TM_INLINE_LAMBDA { return a.v[i] * b.v[i]; });
}
TM_INLINE Rows operator+(const Rows& a, const Rows& b) {
  return make_rows([&](int i) TM_INLINE_LAMBDA { return a.v[i] + b.v[i]; });
}
TM_INLINE Rows operator-(const Rows& a, const Rows& b) {
  return make_rows([&](int i) TM_INLINE_LAMBDA { return a.v[i] - b.v[i]; });
}
TM_INLINE Rows operator-(const Rows& a) {
  return make_rows([&](int i) TM_INLINE_LAMBDA { return -a.v[i]; });
}
TM_INLINE Rows fma(const Rows& a, const Rows& b, const Rows& c) {
  return make_rows([&](int i) TM_INLINE_LAMBDA { return fma(a.v[i], b.v[i], c.v[i]); });
}
TM_INLINE Rows to_rows(const Sums& sums) {
  return make_rows([&](int i) TM_INLINE_LAMBDA { return to_vec(sums, i); });
}
TM_INLINE Rows first_bf16(const Codes& pairs) {
  return make_rows([&](int i) TM_INLINE_LAMBDA { return first_bf16(pairs, i); });
}
TM_INLINE Rows second_bf16(const Codes& pairs) {
  return make_rows([&](int i) TM_INLINE_LAMBDA { return second_bf16(pairs, i); });
}

// Unpacks a group in kSteps steps of two quads: step i gives quads first_quad(i) and second_quad(i).
struct CodesPair {
  Codes first;
  Codes second;
};

template <int kBits>
struct Unpack;

template <>
struct Unpack<4> {
  static constexpr int kSteps = 4;
  static constexpr int first_quad(int step) { return step; }
  static constexpr int second_quad(int step) { return step + 4; }
  template <int kStep>
  TM_INLINE static CodesPair step(const uint8_t* codes) {
    const Codes raw = load_codes(codes + kStep * kVectorBytes);
    return {mask(raw, 0x0f), mask(shift_right<4>(raw), 0x0f)};
  }
};

template <>
struct Unpack<5> : Unpack<4> {
  template <int kStep>
  TM_INLINE static CodesPair step(const uint8_t* codes) {
    const CodesPair low = Unpack<4>::step<kStep>(codes);
    const Codes plane = load_codes(codes + 4 * kVectorBytes);
    return {merge(low.first, shift_left<4 - kStep>(plane), 0x10), merge(low.second, shift_right<kStep>(plane), 0x10)};
  }
};

template <>
struct Unpack<6> {
  static constexpr int kSteps = 2;
  static constexpr int first_quad(int step) { return step; }
  static constexpr int second_quad(int step) { return step + 2; }
  template <int kStep>
  TM_INLINE static CodesPair step(const uint8_t* codes) {
    const Codes raw = load_codes(codes + kStep * kVectorBytes);
    const Codes plane = load_codes(codes + 2 * kVectorBytes);
    return {merge(mask(raw, 0x0f), shift_left<4 - 2 * kStep>(plane), 0x30),
            merge(mask(shift_right<4>(raw), 0x0f), shift_right<2 * kStep>(plane), 0x30)};
  }
};

template <>
struct Unpack<8> {
  static constexpr int kSteps = 4;
  static constexpr int first_quad(int step) { return 2 * step; }
  static constexpr int second_quad(int step) { return 2 * step + 1; }
  template <int kStep>
  TM_INLINE static CodesPair step(const uint8_t* codes) {
    return {load_codes(codes + 2 * kStep * kVectorBytes), load_codes(codes + (2 * kStep + 1) * kVectorBytes)};
  }
};

// Calls fn(Step<i>{}) for i = 0 .. kSteps - 1, unrolled.
template <int kStep>
struct Step {
  static constexpr int value = kStep;
};
template <int kSteps, int kStep = 0, class Fn>
TM_INLINE void for_each_step(Fn&& fn) {
  if constexpr (kStep < kSteps) {
    fn(Step<kStep>{});
    for_each_step<kSteps, kStep + 1>(fn);
  }
}

// The scales of one group of a block: w = scale * (q - offset) + minimum.
template <ScaleLayout kLayout, int kGroupsPerBlock>
struct Scales;

template <int kGroups>
struct Scales<ScaleLayout::kNone, kGroups> {
  static constexpr bool kHasMin = false;
  TM_INLINE static Rows scale(const uint8_t*, int) { return set_rows(1.0f); }
  TM_INLINE static Rows minimum(const uint8_t*, int) { return set_rows(0.0f); }
};

template <int kGroups>
struct Scales<ScaleLayout::kScale, kGroups> {
  static constexpr bool kHasMin = false;
  TM_INLINE static Rows scale(const uint8_t* block, int group) {
    return load_rows(reinterpret_cast<const F16*>(block) + group * kPanelRows);
  }
  TM_INLINE static Rows minimum(const uint8_t*, int) { return set_rows(0.0f); }
};

template <int kGroups>
struct Scales<ScaleLayout::kScaleMin, kGroups> {
  static constexpr bool kHasMin = true;
  TM_INLINE static Rows scale(const uint8_t* block, int group) {
    return load_rows(reinterpret_cast<const F16*>(block) + 2 * group * kPanelRows);
  }
  TM_INLINE static Rows minimum(const uint8_t* block, int group) {
    return load_rows(reinterpret_cast<const F16*>(block) + (2 * group + 1) * kPanelRows);
  }
};

template <int kGroups>
struct Scales<ScaleLayout::kSuperMin, kGroups> {
  static constexpr bool kHasMin = true;
  static constexpr int kSuperBytes = 4 * kPanelRows;
  TM_INLINE static Rows scale(const uint8_t* block, int group) {
    const Rows d = load_rows(reinterpret_cast<const F16*>(block));
    return d * load_rows(block + kSuperBytes + 2 * group * kPanelRows);
  }
  TM_INLINE static Rows minimum(const uint8_t* block, int group) {
    const Rows dmin = load_rows(reinterpret_cast<const F16*>(block) + kPanelRows);
    return -(dmin * load_rows(block + kSuperBytes + (2 * group + 1) * kPanelRows));
  }
};

template <int kGroups>
struct Scales<ScaleLayout::kSuperScale, kGroups> {
  static constexpr bool kHasMin = false;
  static constexpr int kSuperBytes = 2 * kPanelRows;
  TM_INLINE static Rows scale(const uint8_t* block, int group) {
    const Rows d = load_rows(reinterpret_cast<const F16*>(block));
    return d * load_rows(reinterpret_cast<const int8_t*>(block) + kSuperBytes + group * kPanelRows);
  }
  TM_INLINE static Rows minimum(const uint8_t*, int) { return set_rows(0.0f); }
};

template <int kGroups>
struct Scales<ScaleLayout::kScaleZero, kGroups> {
  static constexpr bool kHasMin = true;
  static constexpr int kScaleBytes = 4 * kPanelRows;
  TM_INLINE static Rows scale(const uint8_t* block, int group) {
    return load_rows(reinterpret_cast<const float*>(block) + group * kPanelRows);
  }
  TM_INLINE static Rows zero_point(const uint8_t* block, int group) {
    return load_rows(block + kGroups * kScaleBytes + group * kPanelRows);
  }
  TM_INLINE static Rows minimum(const uint8_t* block, int group) {
    return -(scale(block, group) * zero_point(block, group));
  }
};

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
