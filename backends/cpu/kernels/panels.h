// SPDX-License-Identifier: Apache-2.0
//
// The packed form of a weight: panels of 16 output rows, so that one vector holds the same k of 16 rows.
//
// A quantised panel is a sequence of blocks along k. A block is [scales of all its groups][codes of group 0][group
// 1]..., both parts a multiple of 64 bytes. Codes are unsigned bytes (or parts of them) in vectors of 64: 16 rows x 4
// consecutive k (a "quad"), byte 4 * row + k % 4. Group of 32 k: quads 0..7.
//   4 bits: 4 vectors; vector i holds quad i in the low and quad i + 4 in the high nibbles
//   5 bits: as 4 bits, then one vector whose bit q of byte b is bit 4 of byte b of quad q
//   6 bits (groups of 16 k, quads 0..3): 2 vectors, quads i and i + 2; then one whose bits 2q, 2q + 1 are bits 4, 5 of
//   quad q 8 bits: 8 vectors
// A float panel is [k][16 rows] of float32 or float16, or [k / 2][16 rows][2] of bfloat16 (as the dot product
// instructions for that type want it); an odd number of k is padded there. Rows past the weight's last are zero.
#pragma once

#include <cstddef>
#include <cstdint>

namespace turbomind::cpu {

inline constexpr int kPanelRows = 16;
inline constexpr int kQuad = 4;          // k per 32-bit lane of codes
inline constexpr int kVectorBytes = 64;  // one quad of a panel

enum class PanelFormat : uint8_t {
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kInt4Group,
  kInt8Group,
  kInt8Channel,
  kF32,
  kF16,
  kBf16,
};
inline constexpr int kNumPanelFormats = 14;

// How the scales of a block lie. d, m, s: one value per row, 16 rows together.
enum class ScaleLayout : uint8_t {
  kNone,        // one scale per row, in the panel's header
  kScale,       // f16 d per group;                                        w = d * (q - offset)
  kScaleMin,    // f16 d, f16 m per group;                                 w = d * q + m
  kSuperMin,    // f16 d, f16 dmin per block, then u8 s, u8 m per group;   w = d * s * q - dmin * m
  kSuperScale,  // f16 d per block, then i8 s per group;                   w = d * s * (q - offset)
  kScaleZero,   // f32 s per group, then u8 z per group;                   w = s * (q - z)
};

struct PanelGeometry {
  ScaleLayout scales;
  int code_bits;
  int offset;   // subtracted from every code
  int group_k;  // k that share a scale
  int groups_per_block;
  int scale_bytes;   // of a block
  int header_bytes;  // at the start of a panel

  constexpr int group_code_bytes() const { return kPanelRows * group_k * code_bits / 8; }
  constexpr int block_k() const { return group_k * groups_per_block; }
  constexpr int block_bytes() const { return scale_bytes + groups_per_block * group_code_bytes(); }
};

// Only for quantised formats.
constexpr PanelGeometry panel_geometry(PanelFormat format) {
  switch (format) {
    case PanelFormat::kQ4_0:
      return {ScaleLayout::kScale, 4, 8, 32, 2, 64, 0};
    case PanelFormat::kQ4_1:
      return {ScaleLayout::kScaleMin, 4, 0, 32, 1, 64, 0};
    case PanelFormat::kQ5_0:
      return {ScaleLayout::kScale, 5, 16, 32, 2, 64, 0};
    case PanelFormat::kQ5_1:
      return {ScaleLayout::kScaleMin, 5, 0, 32, 1, 64, 0};
    case PanelFormat::kQ8_0:
      return {ScaleLayout::kScale, 8, 128, 32, 2, 64, 0};
    case PanelFormat::kQ4_K:
      return {ScaleLayout::kSuperMin, 4, 0, 32, 8, 320, 0};
    case PanelFormat::kQ5_K:
      return {ScaleLayout::kSuperMin, 5, 0, 32, 8, 320, 0};
    case PanelFormat::kQ6_K:
      return {ScaleLayout::kSuperScale, 6, 32, 16, 16, 320, 0};
    case PanelFormat::kInt4Group:
      return {ScaleLayout::kScaleZero, 4, 0, 32, 4, 320, 0};
    case PanelFormat::kInt8Group:
      return {ScaleLayout::kScaleZero, 8, 0, 32, 4, 320, 0};
    case PanelFormat::kInt8Channel:
      return {ScaleLayout::kNone, 8, 128, 32, 1, 0, 64};
    default:
      return {};
  }
}

constexpr bool is_quantized(PanelFormat format) { return format < PanelFormat::kF32; }

// Bytes of one element of a float panel.
constexpr int float_panel_bytes(PanelFormat format) { return format == PanelFormat::kF32 ? 4 : 2; }

constexpr int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

constexpr size_t panel_bytes(PanelFormat format, int64_t cols) {
  if (!is_quantized(format)) return static_cast<size_t>(round_up(cols, 2)) * kPanelRows * float_panel_bytes(format);
  const PanelGeometry geometry = panel_geometry(format);
  const int64_t blocks = (cols + geometry.block_k() - 1) / geometry.block_k();
  return static_cast<size_t>(geometry.header_bytes + blocks * geometry.block_bytes());
}

// A packed matrix.
struct Panels {
  PanelFormat format;
  int64_t rows;
  int64_t cols;
  size_t bytes_per_panel;
  const uint8_t* data;

  int64_t count() const { return (rows + kPanelRows - 1) / kPanelRows; }
  const uint8_t* panel(int64_t index) const { return data + static_cast<size_t>(index) * bytes_per_panel; }
};

// Activations quantised to int8 in groups of 32 k, for one tile of `count` tokens. Group g of the tile starts at word
// g * kGroupWords * count of it and holds (32-bit words): 8 quads of codes of each token in turn, then of all tokens
//   [scale f32][scale * sum f32][-sum i32][-sum of the first 16, i32][-sum of the last 16, i32]
// so that a kernel for `count` tokens reads every word at a constant distance, and the codes are the rows of a matrix
// tile. Tiles lie one after the other: that of the tokens from `row` on starts at word row * words_per_token.
inline constexpr int kActivationGroup = 32;
inline constexpr int kActivationPad = 128;  // k is padded with zeros to a multiple: the longest block of any format
                                            // that does not bring its own (256 of the K-quants) is whole
inline constexpr int kGroupWords = 13;
inline constexpr int kCodeWords = 8;
inline constexpr int kScaleWord = 8;
inline constexpr int kScaledSumWord = 9;
inline constexpr int kNegativeSumWord = 10;
inline constexpr int kNegativeHalfSumWord = 11;

constexpr int64_t activation_words_per_token(int64_t cols) {
  return round_up(cols, kActivationPad) / kActivationGroup * kGroupWords;
}

// An element far larger than the rest of its row would make the codes of its whole group coarse. Elements beyond
// kOutlierRms times the row's root mean square are therefore left out of the codes (0 there) and multiplied in float32:
// on SmolLM2 and Gemma 3 that is one element in 250, and takes the divergence from float32 activations to a quarter. A
// token's list is [count] and then count x [k, value f32]; it lies at word token * outlier_words_per_token.
inline constexpr float kOutlierRms = 5.0f;

// No more than 1 / kOutlierRms^2 of the elements can be that large.
constexpr int64_t max_outliers(int64_t cols) { return cols / static_cast<int64_t>(kOutlierRms * kOutlierRms) + 1; }

constexpr int64_t outlier_words_per_token(int64_t cols) { return 1 + 2 * max_outliers(cols); }

}  // namespace turbomind::cpu
