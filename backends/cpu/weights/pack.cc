// SPDX-License-Identifier: Apache-2.0
#include "weights/pack.h"

#include <algorithm>
#include <cstring>

#include "weights/format.h"
#include "weights/source_blocks.h"

namespace turbomind::cpu {
namespace {

// The 16 rows of a panel; rows past the weight's last have data == nullptr.
struct PanelSource {
  SourceRow rows[kPanelRows];
};

PanelSource panel_source(const tm_weight_desc& desc, const tm_weight_part* parts, int num_parts, int64_t first_row) {
  PanelSource source{};
  for (int i = 0; i < kPanelRows; ++i) {
    int64_t row = first_row + i;
    int part = 0;
    while (part < num_parts && row >= parts[part].rows) row -= parts[part++].rows;
    if (part == num_parts) break;
    const tm_weight_part& from = parts[part];
    const auto at = [row](const void* base, int64_t stride) {
      return base ? static_cast<const uint8_t*>(base) + row * stride : nullptr;
    };
    source.rows[i] = {.data = at(from.data, from.row_stride_bytes),
                      .scales = at(from.scales, from.scale_stride_bytes),
                      .zeros = at(from.zeros, from.zero_stride_bytes),
                      .scale_dtype = desc.scale_dtype,
                      .group_size = desc.group_size,
                      .phase = from.scale_col_phase,
                      .global_scale = from.global_scale != 0.0f ? from.global_scale : 1.0f};
  }
  return source;
}

void put_word(uint8_t* vectors, int vector, int row, uint32_t word) {
  std::memcpy(vectors + vector * kVectorBytes + row * kQuad, &word, sizeof word);
}

// Codes of one row and group into the group's vectors (kernels/panels.h).
template <int kBits>
void put_codes(const uint8_t* codes, int row, uint8_t* out) {
  constexpr int kQuads = kBits == 6 ? 4 : 8;
  uint32_t quad[kQuads];
  std::memcpy(quad, codes, sizeof quad);
  if constexpr (kBits == 8) {
    for (int i = 0; i < kQuads; ++i) put_word(out, i, row, quad[i]);
    return;
  }
  constexpr uint32_t kNibble = 0x0f0f0f0fu;
  for (int i = 0; i < kQuads / 2; ++i) {
    put_word(out, i, row, (quad[i] & kNibble) | ((quad[i + kQuads / 2] & kNibble) << 4));
  }
  if constexpr (kBits > 4) {
    constexpr int kPlaneBits = kBits - 4;
    uint32_t plane = 0;
    for (int i = 0; i < kQuads; ++i) plane |= ((quad[i] & ~kNibble) >> 4) << (kPlaneBits * i);
    put_word(out, kQuads / 2, row, plane);
  }
}

template <class T>
void put(uint8_t* base, int index, T value) {
  std::memcpy(base + static_cast<size_t>(index) * sizeof(T), &value, sizeof value);
}

// Scales of one row into the block's first bytes.
template <PanelFormat kFormat>
void put_scales(const RowBlock& block, int row, uint8_t* out) {
  constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  constexpr int kGroups = kGeometry.groups_per_block;
  if constexpr (kGeometry.scales == ScaleLayout::kScale) {
    for (int g = 0; g < kGroups; ++g) put(out, g * kPanelRows + row, block.d[g]);
  } else if constexpr (kGeometry.scales == ScaleLayout::kScaleMin) {
    for (int g = 0; g < kGroups; ++g) {
      put(out, 2 * g * kPanelRows + row, block.d[g]);
      put(out, (2 * g + 1) * kPanelRows + row, block.m[g]);
    }
  } else if constexpr (kGeometry.scales == ScaleLayout::kSuperMin) {
    put(out, row, block.d[0]);
    put(out, kPanelRows + row, block.m[0]);
    for (int g = 0; g < kGroups; ++g) {
      put(out + 4 * kPanelRows, 2 * g * kPanelRows + row, block.group_scale[g]);
      put(out + 4 * kPanelRows, (2 * g + 1) * kPanelRows + row, block.group_min[g]);
    }
  } else if constexpr (kGeometry.scales == ScaleLayout::kSuperScale) {
    put(out, row, block.d[0]);
    for (int g = 0; g < kGroups; ++g) put(out + 2 * kPanelRows, g * kPanelRows + row, block.group_scale[g]);
  } else if constexpr (kGeometry.scales == ScaleLayout::kScaleZero) {
    for (int g = 0; g < kGroups; ++g) {
      put(out, g * kPanelRows + row, block.scale[g]);
      put(out + kGroups * kPanelRows * sizeof(float), g * kPanelRows + row, block.zero[g]);
    }
  }
}

template <PanelFormat kFormat>
void pack_quantized(const PanelSource& source, int64_t cols, uint8_t* panel) {
  constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  for (int64_t k = 0; k < cols; k += kGeometry.block_k(), panel += kGeometry.block_bytes()) {
    const int groups = static_cast<int>(
        std::min<int64_t>(kGeometry.groups_per_block, (cols - k + kGeometry.group_k - 1) / kGeometry.group_k));
    for (int row = 0; row < kPanelRows; ++row) {
      RowBlock block;
      if (!source.rows[row].data || groups < kGeometry.groups_per_block) std::memset(&block, 0, sizeof block);
      if (source.rows[row].data) SourceBlocks<kFormat>::read(source.rows[row], k, groups, block);
      put_scales<kFormat>(block, row, panel);
      for (int g = 0; g < kGeometry.groups_per_block; ++g) {
        put_codes<kGeometry.code_bits>(block.codes + g * kGeometry.group_k, row,
                                       panel + kGeometry.scale_bytes + g * kGeometry.group_code_bytes());
      }
    }
  }
}

void pack_int8_channel(const PanelSource& source, int64_t cols, uint8_t* panel) {
  constexpr PanelGeometry kGeometry = panel_geometry(PanelFormat::kInt8Channel);
  for (int row = 0; row < kPanelRows; ++row) {
    const SourceRow& from = source.rows[row];
    put(panel, row, from.data ? read_scale(from.scales, from.scale_dtype, 0) * from.global_scale : 0.0f);
    uint8_t* out = panel + kGeometry.header_bytes;
    for (int64_t k = 0; k < cols; k += kGeometry.group_k, out += kGeometry.block_bytes()) {
      uint8_t codes[kActivationGroup] = {};
      const int64_t count = from.data ? std::min<int64_t>(kGeometry.group_k, cols - k) : 0;
      for (int64_t i = 0; i < count; ++i) codes[i] = from.data[k + i] ^ 0x80;
      put_codes<8>(codes, row, out);
    }
  }
}

// kPairs: [k / 2][16 rows][2], else [k][16 rows].
template <class T, bool kPairs>
void pack_float(const PanelSource& source, int64_t cols, uint8_t* panel) {
  constexpr int64_t kRun = 16;  // k at a time: 16 rows of source and 16 rows of panel stay in L1
  T* out = reinterpret_cast<T*>(panel);
  for (int64_t k0 = 0; k0 < cols; k0 += kRun) {
    const int64_t count = round_up(std::min(kRun, cols - k0), 2);
    for (int row = 0; row < kPanelRows; ++row) {
      T values[kRun] = {};
      if (source.rows[row].data) {
        std::memcpy(values, source.rows[row].data + k0 * sizeof(T), std::min(kRun, cols - k0) * sizeof(T));
      }
      for (int64_t i = 0; i < count; ++i) {
        const int64_t k = k0 + i;
        out[kPairs ? (k / 2 * kPanelRows + row) * 2 + k % 2 : k * kPanelRows + row] = values[i];
      }
    }
  }
}

using PackFn = void (*)(const PanelSource&, int64_t cols, uint8_t* panel);

PackFn pack_function(PanelFormat format) {
  switch (format) {
    case PanelFormat::kQ4_0:
      return pack_quantized<PanelFormat::kQ4_0>;
    case PanelFormat::kQ4_1:
      return pack_quantized<PanelFormat::kQ4_1>;
    case PanelFormat::kQ5_0:
      return pack_quantized<PanelFormat::kQ5_0>;
    case PanelFormat::kQ5_1:
      return pack_quantized<PanelFormat::kQ5_1>;
    case PanelFormat::kQ8_0:
      return pack_quantized<PanelFormat::kQ8_0>;
    case PanelFormat::kQ4_K:
      return pack_quantized<PanelFormat::kQ4_K>;
    case PanelFormat::kQ5_K:
      return pack_quantized<PanelFormat::kQ5_K>;
    case PanelFormat::kQ6_K:
      return pack_quantized<PanelFormat::kQ6_K>;
    case PanelFormat::kInt4Group:
      return pack_quantized<PanelFormat::kInt4Group>;
    case PanelFormat::kInt8Group:
      return pack_quantized<PanelFormat::kInt8Group>;
    case PanelFormat::kInt8Channel:
      return pack_int8_channel;
    case PanelFormat::kF32:
      return pack_float<uint32_t, false>;
    case PanelFormat::kF16:
      return pack_float<uint16_t, false>;
    case PanelFormat::kBf16:
      return pack_float<uint16_t, true>;
  }
  throw abi::Error(TM_INTERNAL, "panel format without a packer");
}

}  // namespace

void pack_panels(ThreadPool& pool, const tm_weight_desc& desc, const tm_weight_part* parts, int num_parts,
                 const Panels& panels) {
  const PackFn pack = pack_function(panels.format);
  pool.parallel_ranges(panels.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      pack(panel_source(desc, parts, num_parts, panel * kPanelRows), panels.cols,
           const_cast<uint8_t*>(panels.panel(panel)));
    }
  });
}

}  // namespace turbomind::cpu
