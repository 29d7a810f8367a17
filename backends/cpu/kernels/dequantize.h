// SPDX-License-Identifier: Apache-2.0
//
// Exact float32 values of quantised panels.
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
TM_INLINE Rows panel_column(const uint8_t* panel, int64_t k) {
  constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  const uint8_t* block = panel + kGeometry.header_bytes + k / kGeometry.block_k() * kGeometry.block_bytes();
  const int in_block = static_cast<int>(k % kGeometry.block_k());
  const int group = in_block / kGeometry.group_k;
  const uint8_t* codes = block + kGeometry.scale_bytes + group * kGeometry.group_code_bytes();
  return GroupValues<kFormat>(block, group)(codes_at<kFormat>(codes, in_block % kGeometry.group_k));
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
