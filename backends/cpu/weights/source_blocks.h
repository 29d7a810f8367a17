// SPDX-License-Identifier: Apache-2.0
//
// Reads the quantised blocks of a checkpoint. Layouts of the GGUF types: ggml/src/ggml-common.h and ggml-quants.c of
// the ggml project. Each reader turns one row's k0 .. k0 + block_k() - 1 (one panel block) into unsigned codes and
// scales.
#pragma once

#include <cstring>

#include "dtype.h"
#include "kernels/panels.h"
#include "turbomind/abi/tm_backend.h"

namespace turbomind::cpu {

inline constexpr int kMaxBlockK = 256;
inline constexpr int kMaxBlockGroups = 16;

// One row's share of a panel block. Which fields count depends on the ScaleLayout.
struct RowBlock {
  alignas(32) uint8_t codes[kMaxBlockK];
  F16 d[kMaxBlockGroups];  // per group (kScale, kScaleMin) or [0] for the block (kSuper*)
  F16 m[kMaxBlockGroups];  // likewise
  uint8_t group_scale[kMaxBlockGroups];
  uint8_t group_min[kMaxBlockGroups];
  float scale[kMaxBlockGroups];  // kScaleZero
  uint8_t zero[kMaxBlockGroups];
};

// A row of the source: codes, and scales where they are apart.
struct SourceRow {
  const uint8_t* data;
  const void* scales;
  const uint8_t* zeros;
  tm_dtype scale_dtype;
  int group_size;
  int phase;           // column of the slice's first k inside its scale group
  float global_scale;  // multiplies every scale
};

inline F16 read_f16(const uint8_t* p) {
  F16 value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

inline float read_scale(const void* scales, tm_dtype dtype, int64_t index) {
  if (dtype == TM_F16) return to_float(static_cast<const F16*>(scales)[index]);
  if (dtype == TM_BF16) return to_float(static_cast<const Bf16*>(scales)[index]);
  return static_cast<const float*>(scales)[index];
}

// Low nibbles are k 0..15, high nibbles k 16..31.
inline void read_nibbles(const uint8_t* p, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = p[i] & 0x0f;
    codes[i + 16] = p[i] >> 4;
  }
}

// Bit k of the 32 is bit 4 of code k.
inline void read_fifth_bits(const uint8_t* p, uint8_t* codes) {
  uint32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(codes[i] | (((bits >> i) & 1u) << 4));
}

// 6-bit scale and min of group g out of the 12 bytes of a Q4_K or Q5_K block.
inline void read_k_scale(const uint8_t* p, int g, uint8_t* scale, uint8_t* min) {
  if (g < 4) {
    *scale = p[g] & 63;
    *min = p[g + 4] & 63;
  } else {
    *scale = static_cast<uint8_t>((p[g + 4] & 0x0f) | ((p[g - 4] >> 6) << 4));
    *min = static_cast<uint8_t>((p[g + 4] >> 4) | ((p[g] >> 6) << 4));
  }
}

template <PanelFormat kFormat>
struct SourceBlocks;

// Types of 32 with a d, perhaps an m, perhaps fifth bits, then nibbles.
template <PanelFormat kFormat, bool kHasMin, bool kHasFifthBit>
struct NibbleBlocks {
  static constexpr int kGroups = panel_geometry(kFormat).groups_per_block;
  static constexpr int kNibblesAt = 2 + (kHasMin ? 2 : 0) + (kHasFifthBit ? 4 : 0);
  static constexpr int kBytes = kNibblesAt + 16;

  static void read(const SourceRow& row, int64_t k0, int groups, RowBlock& out) {
    const uint8_t* block = row.data + k0 / 32 * kBytes;
    for (int g = 0; g < groups; ++g, block += kBytes) {
      out.d[g] = read_f16(block);
      if constexpr (kHasMin) out.m[g] = read_f16(block + 2);
      read_nibbles(block + kNibblesAt, out.codes + g * 32);
      if constexpr (kHasFifthBit) read_fifth_bits(block + kNibblesAt - 4, out.codes + g * 32);
    }
  }
};

template <>
struct SourceBlocks<PanelFormat::kQ4_0> : NibbleBlocks<PanelFormat::kQ4_0, false, false> {};
template <>
struct SourceBlocks<PanelFormat::kQ4_1> : NibbleBlocks<PanelFormat::kQ4_1, true, false> {};
template <>
struct SourceBlocks<PanelFormat::kQ5_0> : NibbleBlocks<PanelFormat::kQ5_0, false, true> {};
template <>
struct SourceBlocks<PanelFormat::kQ5_1> : NibbleBlocks<PanelFormat::kQ5_1, true, true> {};

template <>
struct SourceBlocks<PanelFormat::kQ8_0> {
  static void read(const SourceRow& row, int64_t k0, int groups, RowBlock& out) {
    const uint8_t* block = row.data + k0 / 32 * 34;
    for (int g = 0; g < groups; ++g, block += 34) {
      out.d[g] = read_f16(block);
      for (int i = 0; i < 32; ++i) out.codes[g * 32 + i] = block[2 + i] ^ 0x80;
    }
  }
};

// d, dmin, 12 bytes of scales, then (Q5_K) 32 bytes of fifth bits, then nibbles: 32 bytes hold two groups.
template <int kFifthBitBytes>
struct SuperMinBlocks {
  static void read(const SourceRow& row, int64_t k0, int, RowBlock& out) {
    constexpr int kBytes = 16 + kFifthBitBytes + 128;
    const uint8_t* block = row.data + k0 / 256 * kBytes;
    const uint8_t* high = block + 16;
    const uint8_t* low = high + kFifthBitBytes;
    out.d[0] = read_f16(block);
    out.m[0] = read_f16(block + 2);
    for (int g = 0; g < 8; ++g) {
      read_k_scale(block + 4, g, &out.group_scale[g], &out.group_min[g]);
      for (int i = 0; i < 32; ++i) {
        const int nibble = (low[g / 2 * 32 + i] >> (g % 2 * 4)) & 0x0f;
        const int fifth = kFifthBitBytes ? ((high[i] >> g) & 1) << 4 : 0;
        out.codes[g * 32 + i] = static_cast<uint8_t>(nibble | fifth);
      }
    }
  }
};

template <>
struct SourceBlocks<PanelFormat::kQ4_K> : SuperMinBlocks<0> {};
template <>
struct SourceBlocks<PanelFormat::kQ5_K> : SuperMinBlocks<32> {};

// 128 bytes of low nibbles, 64 of bit pairs, 16 int8 scales, d. Each half of the block holds four runs of 32 k.
template <>
struct SourceBlocks<PanelFormat::kQ6_K> {
  static void read(const SourceRow& row, int64_t k0, int, RowBlock& out) {
    const uint8_t* block = row.data + k0 / 256 * 210;
    std::memcpy(out.group_scale, block + 192, 16);
    out.d[0] = read_f16(block + 208);
    for (int half = 0; half < 2; ++half) {
      const uint8_t* low = block + half * 64;
      const uint8_t* high = block + 128 + half * 32;
      for (int run = 0; run < 4; ++run) {
        uint8_t* codes = out.codes + half * 128 + run * 32;
        for (int i = 0; i < 32; ++i) {
          const int nibble = (low[run % 2 * 32 + i] >> (run / 2 * 4)) & 0x0f;
          codes[i] = static_cast<uint8_t>(nibble | (((high[i] >> (2 * run)) & 3) << 4));
        }
      }
    }
  }
};

// Scales and zero points of groups apart from the codes.
inline void read_group_scales(const SourceRow& row, int64_t k0, int groups, int default_zero, RowBlock& out) {
  for (int g = 0; g < groups; ++g) {
    const int64_t index = (row.phase + k0 + g * 32) / row.group_size;
    out.scale[g] = read_scale(row.scales, row.scale_dtype, index) * row.global_scale;
    out.zero[g] = row.zeros ? row.zeros[index] : static_cast<uint8_t>(default_zero);
  }
}

template <>
struct SourceBlocks<PanelFormat::kInt4Group> {
  static void read(const SourceRow& row, int64_t k0, int groups, RowBlock& out) {
    read_group_scales(row, k0, groups, 8, out);
    for (int i = 0; i < groups * 16; ++i) {
      const uint8_t pair = row.data[k0 / 2 + i];
      out.codes[2 * i] = pair & 0x0f;
      out.codes[2 * i + 1] = pair >> 4;
    }
  }
};

template <>
struct SourceBlocks<PanelFormat::kInt8Group> {
  static void read(const SourceRow& row, int64_t k0, int groups, RowBlock& out) {
    read_group_scales(row, k0, groups, 128, out);
    std::memcpy(out.codes, row.data + k0, static_cast<size_t>(groups) * 32);
  }
};

}  // namespace turbomind::cpu
