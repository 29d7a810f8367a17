// SPDX-License-Identifier: Apache-2.0
//
// A tile of sums is 16 tokens x the 16 rows of a panel. Per group of 32 k: one tile of activations (rows of 32 bytes as
// quantize.h leaves them), one of weights (8 quads of a panel, expanded to bytes once per task) and one product. The
// sums go through memory to vectors, where scales are applied as linear_int8 does. That part, four vector operations
// for 16 sums, takes as long as the tile instructions, and the processor hardly overlaps the two.
#include "kernels/linear_amx.h"

#include "kernels/amx.h"
#include "kernels/dequantize.h"
#include "kernels/outliers.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr int kTileTokens = 16;
constexpr int kSumsTile = 0;  // and 1
constexpr int kActivationTile = 4;
constexpr int kWeightTile = 6;

// What the inner loop must know of a format.
struct Shape {
  int group_k;
  bool has_min;
  bool unsigned_codes;
};

constexpr Shape shape_of(PanelFormat format) {
  const PanelGeometry geometry = panel_geometry(format);
  const bool has_min = geometry.scales == ScaleLayout::kScaleMin || geometry.scales == ScaleLayout::kSuperMin ||
                       geometry.scales == ScaleLayout::kScaleZero;
  return {geometry.group_k, has_min, geometry.code_bits == 8 && geometry.offset == 0};
}

constexpr int64_t num_groups(PanelFormat format, int64_t cols) {
  const PanelGeometry geometry = panel_geometry(format);
  return (cols + geometry.block_k() - 1) / geometry.block_k() * geometry.groups_per_block;
}

// A panel with its codes (less the format's offset) as bytes and its scales as floats.
struct ExpandedPanel {
  uint8_t* codes;  // [groups][group_k / 4][16 rows][4]
  float* scales;   // [groups][2][16 rows]: scale, minimum
};

TM_INLINE ExpandedPanel expanded_panel(const LinearTask& task, int index, int group_k) {
  const int64_t groups = amx_panel_groups(task.panels.cols, group_k);
  float* floats = task.scratch + index * (amx_scratch_floats(task.panels.cols) / kAmxPanels);
  return {reinterpret_cast<uint8_t*>(floats + groups * 2 * kPanelRows), floats};
}

template <PanelFormat kFormat>
void expand_panel(const uint8_t* panel, int64_t cols, const ExpandedPanel& out) {
  constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  using GroupScales = Scales<kGeometry.scales, kGeometry.groups_per_block>;
  using GroupCodes = Unpack<kGeometry.code_bits>;
  const __m512i offset = _mm512_set1_epi8(static_cast<char>(kGeometry.offset));
  const auto store_codes = [offset](uint8_t* to, const Codes& codes)
                               TM_INLINE_LAMBDA { _mm512_store_si512(to, _mm512_sub_epi8(codes.v, offset)); };
  const uint8_t* block = panel + kGeometry.header_bytes;
  uint8_t* to = out.codes;
  float* scales = out.scales;
  for (int64_t k = 0; k < cols; k += kGeometry.block_k(), block += kGeometry.block_bytes()) {
#pragma GCC unroll 1
    for (int group = 0; group < kGeometry.groups_per_block; ++group) {
      const uint8_t* from = block + kGeometry.scale_bytes + group * kGeometry.group_code_bytes();
      for_each_step<GroupCodes::kSteps>([&](auto step) TM_INLINE_LAMBDA {
        constexpr int kStep = decltype(step)::value;
        const CodesPair pair = GroupCodes::template step<kStep>(from);
        store_codes(to + GroupCodes::first_quad(kStep) * kVectorBytes, pair.first);
        store_codes(to + GroupCodes::second_quad(kStep) * kVectorBytes, pair.second);
      });
      store_rows(scales, GroupScales::scale(block, group));
      store_rows(scales + kPanelRows, GroupScales::minimum(block, group));
      to += kGeometry.group_k / kQuad * kVectorBytes;
      scales += 2 * kPanelRows;
    }
  }
}

// Column k, equal to panel_column() to the bit.
template <PanelFormat kFormat>
TM_INLINE Rows expanded_column(const uint8_t* panel, const ExpandedPanel& expanded, uint32_t k) {
  constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  if constexpr (kGeometry.scales == ScaleLayout::kScaleZero) {
    return panel_column<kFormat>(panel, k);  // scale * (code - zero point) is not to be had from the minimum
  } else {
    const __m512i lanes = _mm512_load_si512(expanded.codes + k / kQuad * kVectorBytes);
    const __m512i high = _mm512_sll_epi32(lanes, _mm_cvtsi32_si128(static_cast<int>(24 - k % kQuad * 8)));
    const Rows codes = to_rows(Sums{_mm512_srai_epi32(high, 24)});
    const float* scales = expanded.scales + k / kGeometry.group_k * 2 * kPanelRows;
    const Rows value = load_rows(scales) * codes;
    return shape_of(kFormat).has_min ? value + load_rows(scales + kPanelRows) : value;
  }
}

// The sums of up to kTokens tokens and one panel.
template <int kGroupK, bool kHasMin, bool kUnsignedCodes, int kTokens>
struct Tile {
  static constexpr int kGroupBytes = kGroupK / kQuad * kVectorBytes;

  int tokens;  // in the tile of activations; kTokens may be more, what is made of those is not used
  const int32_t* activations;
  ExpandedPanel panel;
  alignas(64) int32_t sums[2][kTileTokens * kPanelRows];

  TM_INLINE const int32_t* words(int64_t group) const {
    return activations + group * kGroupK / kActivationGroup * kGroupWords * tokens;
  }

  template <int kSlot>
  TM_INLINE void multiply(int64_t group) {
    const int half = kGroupK == 16 ? static_cast<int>(group % 2) : 0;
    zero_tile<kSumsTile + kSlot>();
    load_tile<kActivationTile + kSlot>(words(group) + half * (kCodeWords / 2), kActivationGroup);
    load_tile<kWeightTile + kSlot>(panel.codes + group * kGroupBytes, kVectorBytes);
    multiply_tiles<kSumsTile + kSlot, kActivationTile + kSlot, kWeightTile + kSlot, kUnsignedCodes>();
    store_tile_rows<kSumsTile + kSlot>(sums[kSlot], kVectorBytes);
  }

  template <int kSlot>
  TM_INLINE void add(int64_t group, Rows (&results)[kTokens]) const {
    const float* fields = reinterpret_cast<const float*>(words(group));
    const float* token_scales = fields + kScaleWord * tokens;
    const float* token_sums = fields + kScaledSumWord * tokens;
    const Rows scale = load_rows(panel.scales + group * 2 * kPanelRows);
    const Rows minimum = load_rows(panel.scales + (group * 2 + 1) * kPanelRows);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const Rows sum = to_rows(Sums{_mm512_load_si512(sums[kSlot] + t * kPanelRows)});
      results[t] = fma(sum, scale * set_rows(token_scales[t]), results[t]);
      if constexpr (kHasMin) results[t] = fma(minimum, set_rows(token_sums[t]), results[t]);
    }
  }

  // groups: even, or 1 more than that. next: bytes of the packed weight that are read after this task's; nullptr: none.
  TM_INLINE void run(int64_t groups, const uint8_t* next, int64_t next_bytes, float* out) {
    Rows results[kTokens];
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) results[t] = set_rows(0.0f);
    multiply<0>(0);
    int64_t group = 0;
    for (; group + 1 < groups; group += 2) {
      multiply<1>(group + 1);
      add<0>(group, results);
      if (group + 2 < groups) multiply<0>(group + 2);
      add<1>(group + 1, results);
      for (int64_t i = 0; next && i < 2 * next_bytes; i += kVectorBytes)
        __builtin_prefetch(next + group * next_bytes + i, 0, 2);
    }
    if (group < groups) add<0>(group, results);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) store_rows(out + t * kPanelRows, results[t]);
  }
};

struct PanelWork {
  const LinearTask& task;
  int64_t panel;
  ExpandedPanel expanded;
  int64_t tile;
  int64_t groups;
  const uint8_t* next;  // packed panel to prefetch, or nullptr
};

template <int kGroupK, bool kHasMin, bool kUnsignedCodes, int kTokens>
[[gnu::noinline]] void sum_tile(const PanelWork& work, float* out) {
  const int64_t first = work.task.tiles.begin(work.tile);
  Tile<kGroupK, kHasMin, kUnsignedCodes, kTokens> tile;
  tile.tokens = work.task.tiles.tokens(work.tile);
  tile.activations =
      static_cast<const int32_t*>(work.task.activations) + first * activation_words_per_token(work.task.panels.cols);
  tile.panel = work.expanded;
  const int64_t group_bytes = static_cast<int64_t>(work.task.panels.bytes_per_panel) / work.groups;
  tile.run(work.groups, work.next, group_bytes, out);
}

using SumFn = void (*)(const PanelWork& work, float* out);

// Of even numbers of tokens from 12 on, as kAmxMinTokens or more make no smaller tiles than of 11. An odd tile reads
// one token's fields from the next field's.
template <int kGroupK, bool kHasMin, bool kUnsignedCodes, int kTokens = 12>
TM_INLINE SumFn sum_function(int tokens) {
  if constexpr (kTokens < kTileTokens) {
    if (tokens > kTokens) return sum_function<kGroupK, kHasMin, kUnsignedCodes, kTokens + 2>(tokens);
  }
  return sum_tile<kGroupK, kHasMin, kUnsignedCodes, kTokens>;
}

template <PanelFormat kFormat>
TM_INLINE void run_tile(const PanelWork& work) {
  constexpr Shape kShape = shape_of(kFormat);
  const LinearTask& task = work.task;
  const int tokens = task.tiles.tokens(work.tile);
  const int64_t first = task.tiles.begin(work.tile);
  alignas(64) float sums[kTileTokens * kPanelRows];
  sum_function<kShape.group_k, kShape.has_min, kShape.unsigned_codes>(tokens)(work, sums);
  const uint8_t* panels[] = {task.panels.panel(work.panel)};
  const auto column = [&](int, uint32_t k)
                          TM_INLINE_LAMBDA { return expanded_column<kFormat>(panels[0], work.expanded, k); };
  finish_tile<kFormat>(task, panels, first, tokens, column, sums);
  store_tile(task, {sums, kPanelRows}, first, tokens, work.panel, 1);
}

TM_INLINE TileShapes tile_shapes(int tokens, int group_k) {
  TileShapes shapes;
  for (int slot = 0; slot < 2; ++slot) {
    shapes.set(kSumsTile + slot, tokens, kVectorBytes);
    shapes.set(kActivationTile + slot, tokens, group_k);
    shapes.set(kWeightTile + slot, group_k / kQuad, kVectorBytes);
  }
  return shapes;
}

template <PanelFormat kFormat>
void run(const LinearTask& task) {
  constexpr Shape kShape = shape_of(kFormat);
  int tokens = 0;
  for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
    tokens = tokens < task.tiles.tokens(tile) ? task.tiles.tokens(tile) : tokens;
  }
  if (tokens == 0) return;
  configure_tiles(tile_shapes(tokens, kShape.group_k));
  const int64_t groups = num_groups(kFormat, task.panels.cols);
  for (int64_t begin = task.panel_begin; begin < task.panel_end; begin += kAmxPanels) {
    const int64_t end = begin + kAmxPanels < task.panel_end ? begin + kAmxPanels : task.panel_end;
    for (int64_t p = begin; p < end; ++p) {
      expand_panel<kFormat>(task.panels.panel(p), task.panels.cols,
                            expanded_panel(task, static_cast<int>(p - begin), kShape.group_k));
    }
    for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      for (int64_t p = begin; p < end; ++p) {
        const bool prefetch = tile + 1 == task.tile_end && p + kAmxPanels < task.panels.count();
        run_tile<kFormat>({task, p, expanded_panel(task, static_cast<int>(p - begin), kShape.group_k), tile, groups,
                           prefetch ? task.panels.panel(p + kAmxPanels) : nullptr});
      }
    }
  }
  release_tiles();
}

template <PanelFormat... kFormats>
TM_INLINE void set_formats(LinearAmxKernels& kernels) {
  ((kernels.run[static_cast<int>(kFormats)] = run<kFormats>), ...);
}

}  // namespace

void fill(LinearAmxKernels& kernels) {
  kernels = {};
  kernels.max_tile_tokens = kTileTokens;
  set_formats<PanelFormat::kQ4_0, PanelFormat::kQ4_1, PanelFormat::kQ5_0, PanelFormat::kQ5_1, PanelFormat::kQ8_0,
              PanelFormat::kQ4_K, PanelFormat::kQ5_K, PanelFormat::kQ6_K, PanelFormat::kInt4Group,
              PanelFormat::kInt8Group, PanelFormat::kInt8Channel>(kernels);
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
