// SPDX-License-Identifier: Apache-2.0
//
// Exact float32 values of quantised panels, and of half-width floats.
#pragma once

#include "kernels/rows.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

// Turns the codes of one group of a block into values, for the panel's 16 rows at once. Without channel scales (kNone).
template <PanelFormat kFormat>
class GroupValues {
 public:
  TM_INLINE GroupValues(const uint8_t* block, int group) : scale_(GroupScales::scale(block, group)) {
    if constexpr (kGeometry.scales == ScaleLayout::kScaleZero) {
      subtracted_ = GroupScales::zero_point(block, group);
    } else if constexpr (GroupScales::kHasMin) {
      added_ = GroupScales::minimum(block, group);
    } else {
      subtracted_ = set_rows(static_cast<float>(kGeometry.offset));
    }
  }

  TM_INLINE Rows operator()(const Sums& codes) const {
    if constexpr (GroupScales::kHasMin && kGeometry.scales != ScaleLayout::kScaleZero) {
      return scale_ * to_rows(codes) + added_;
    } else {
      return scale_ * (to_rows(codes) - subtracted_);
    }
  }

 private:
  static constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  using GroupScales = Scales<kGeometry.scales, kGeometry.groups_per_block>;

  Rows scale_;
  Rows subtracted_;  // before scaling: the format's offset or the group's zero point
  Rows added_;       // after scaling
};

// The codes of one k of a group (kernels/panels.h has the layout).
template <PanelFormat kFormat>
TM_INLINE Sums codes_at(const uint8_t* group_codes, int k) {
  constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  constexpr int kBits = kGeometry.code_bits;
  constexpr int kHalfQuads = kGeometry.group_k / kQuad / 2;
  const int quad = k / kQuad;
  const int byte_shift = k % kQuad * 8;
  if constexpr (kBits == 8) return bits_of_lane(load_codes(group_codes + quad * kVectorBytes), byte_shift, 0xff);
  const int vector = quad % kHalfQuads;
  const int nibble_shift = quad / kHalfQuads * 4;
  const Sums low = bits_of_lane(load_codes(group_codes + vector * kVectorBytes), byte_shift + nibble_shift, 0x0f);
  if constexpr (kBits == 4) return low;
  constexpr int kPlaneBits = kBits - 4;
  const Codes plane = load_codes(group_codes + kHalfQuads * kVectorBytes);
  return or_shifted(low, bits_of_lane(plane, byte_shift + kPlaneBits * quad, (1 << kPlaneBits) - 1), 4);
}

// Column k of a panel: the values of its 16 rows, without channel scales.
template <PanelFormat kFormat>
TM_INLINE Rows panel_column(const uint8_t* panel, uint32_t k) {
  constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  constexpr uint32_t kBlockK = kGeometry.block_k();
  const uint8_t* block = panel + kGeometry.header_bytes + size_t{k / kBlockK} * kGeometry.block_bytes();
  const int in_block = static_cast<int>(k % kBlockK);
  const int group = in_block / kGeometry.group_k;
  const uint8_t* codes = block + kGeometry.scale_bytes + group * kGeometry.group_code_bytes();
  return GroupValues<kFormat>(block, group)(codes_at<kFormat>(codes, in_block % kGeometry.group_k));
}

// Columns [k0, k0 + count) of a panel: [count][kPanelRows], equal to panel_column() to the bit. k0 is a multiple of the
// format's block; a last block is written whole.
template <PanelFormat kFormat>
class Expander {
 public:
  static void expand(const uint8_t* panel, int64_t k0, float* out, int64_t count) {
    const uint8_t* block = panel + kGeometry.header_bytes + k0 / kGeometry.block_k() * kGeometry.block_bytes();
    for (int64_t k = 0; k < count; k += kGeometry.block_k(), block += kGeometry.block_bytes()) {
#pragma GCC unroll 1
      for (int group = 0; group < kGeometry.groups_per_block; ++group) {
        const uint8_t* codes = block + kGeometry.scale_bytes + group * kGeometry.group_code_bytes();
        const GroupValues<kFormat> values(block, group);
        float* group_out = out + (k + group * kGeometry.group_k) * kPanelRows;
        for_each_step<GroupCodes::kSteps>([&](auto step) TM_INLINE_LAMBDA {
          constexpr int kStep = decltype(step)::value;
          const CodesPair pair = GroupCodes::template step<kStep>(codes);
          quad(values, pair.first, group_out + GroupCodes::first_quad(kStep) * kQuad * kPanelRows);
          quad(values, pair.second, group_out + GroupCodes::second_quad(kStep) * kQuad * kPanelRows);
        });
      }
    }
  }

 private:
  static constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  using GroupCodes = Unpack<kGeometry.code_bits>;

  TM_INLINE static void quad(const GroupValues<kFormat>& values, const Codes& codes, float* out) {
    store_rows(out + 0 * kPanelRows, values(byte_of_lane<0>(codes)));
    store_rows(out + 1 * kPanelRows, values(byte_of_lane<1>(codes)));
    store_rows(out + 2 * kPanelRows, values(byte_of_lane<2>(codes)));
    store_rows(out + 3 * kPanelRows, values(byte_of_lane<3>(codes)));
  }
};

template <>
class Expander<PanelFormat::kF16> {
 public:
  static void expand(const uint8_t* panel, int64_t k0, float* out, int64_t count) {
    const F16* column = reinterpret_cast<const F16*>(panel) + k0 * kPanelRows;
    for (int64_t k = 0; k < count; ++k) store_rows(out + k * kPanelRows, load_rows(column + k * kPanelRows));
  }
};

template <>
class Expander<PanelFormat::kBf16> {
 public:
  static void expand(const uint8_t* panel, int64_t k0, float* out, int64_t count) {
    const uint8_t* pairs = panel + k0 / 2 * kVectorBytes;
    for (int64_t k = 0; k < count; k += 2, pairs += kVectorBytes) {
      const Codes pair = load_codes(pairs);
      store_rows(out + k * kPanelRows, first_bf16(pair));
      store_rows(out + (k + 1) * kPanelRows, second_bf16(pair));
    }
  }
};

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
