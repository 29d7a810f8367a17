// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear_int8.h"

#include "kernels/dequantize.h"
#include "kernels/epilogue.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {
namespace {

constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }

template <PanelFormat kFormat>
struct Traits {
  static constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  static constexpr int kBits = kGeometry.code_bits;
  static constexpr int kQuads = kGeometry.group_k / kQuad;
  // Where bytes are taken as signed they already stand for code - 128.
  static constexpr int kOffset = kGeometry.offset - (kBits == 8 && kSignedBytes ? 128 : 0);
  using GroupScales = Scales<kGeometry.scales, kGeometry.groups_per_block>;
  using GroupCodes = Unpack<kBits>;
};

// One tile of kPanels panels and kTokens tokens while it is being summed.
template <PanelFormat kFormat, int kPanels, int kTokens>
struct Tile {
  using T = Traits<kFormat>;

  Rows results[kTokens][kPanels];

  // Minus offset times the sum of the group's activations: what the dot product of the unsigned codes has in excess.
  TM_INLINE static Sums initial_sums(const int32_t* activations, int half) {
    if constexpr (T::kOffset == 0) return set_sums(0);
    const int word = T::kQuads == 8 ? kNegativeSumWord : kNegativeHalfSumWord + half;
    const int32_t negative_sum = activations[word * kTokens];
    if constexpr (T::kOffset > 0) return shift_sums_left<log2_of(T::kOffset)>(set_sums(negative_sum));
    return shift_sums_left<log2_of(-T::kOffset)>(set_sums(-negative_sum));
  }

  // block: the panels' current block. activations: the group of 32 that holds the weight group's k.
  TM_INLINE void add_group(const uint8_t* const (&block)[kPanels], int group, const int32_t* activations) {
    const int half = T::kQuads == 8 ? 0 : group % 2;
    Sums sums[kTokens][kPanels];
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const Sums initial = initial_sums(activations + t, half);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) sums[t][p] = initial;
    }
    const int codes_at = T::kGeometry.scale_bytes + group * T::kGeometry.group_code_bytes();
    for_each_step<T::GroupCodes::kSteps>([&](auto step) TM_INLINE_LAMBDA {
      constexpr int kStep = decltype(step)::value;
      CodesPair codes[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) codes[p] = T::GroupCodes::template step<kStep>(block[p] + codes_at);
      const int32_t* first = activations + (half * T::kQuads + T::GroupCodes::first_quad(kStep)) * kTokens;
      const int32_t* second = activations + (half * T::kQuads + T::GroupCodes::second_quad(kStep)) * kTokens;
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const Quad quad = load_quad(first + t);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) sums[t][p] = dot<T::kBits>(sums[t][p], codes[p].first, quad);
      }
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const Quad quad = load_quad(second + t);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) sums[t][p] = dot<T::kBits>(sums[t][p], codes[p].second, quad);
      }
    });
    const float* scales = reinterpret_cast<const float*>(activations);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const Rows scale = T::GroupScales::scale(block[p], group);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const Rows product = scale * set_rows(scales[kScaleWord * kTokens + t]);
        results[t][p] = fma(to_rows(sums[t][p]), product, results[t][p]);
      }
      if constexpr (T::GroupScales::kHasMin) {
        const Rows minimum = T::GroupScales::minimum(block[p], group);
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) {
          results[t][p] = fma(minimum, set_rows(scales[kScaledSumWord * kTokens + t]), results[t][p]);
        }
      }
    }
  }

  TM_INLINE static void prefetch_block(const uint8_t* block) {
    for (int i = 0; i < T::kGeometry.block_bytes(); i += kVectorBytes) __builtin_prefetch(block + i, 0, 2);
  }

  // prefetch: distance to the bytes that will be read next; 0 for none.
  TM_INLINE void sum_all(const uint8_t* const (&panels)[kPanels], const int32_t* activations, int64_t blocks,
                         size_t prefetch) {
    const uint8_t* block[kPanels];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) block[p] = panels[p] + T::kGeometry.header_bytes;
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) results[t][p] = set_rows(0.0f);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      if (prefetch != 0) {
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) prefetch_block(block[p] + prefetch);
      }
#pragma GCC unroll 1
      for (int group = 0; group < T::kGeometry.groups_per_block; ++group) {
        const int group32 = group * T::kQuads / 8;
        add_group(block, group, activations + group32 * kGroupWords * kTokens);
      }
      activations += T::kGeometry.block_k() / kActivationGroup * kGroupWords * kTokens;
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) block[p] += T::kGeometry.block_bytes();
    }
  }
};

// Adds the outliers' products to a tile's sums [tokens][kPanels][16 rows], then applies channel scales.
template <PanelFormat kFormat, int kPanels>
void finish_tile(const LinearTask& task, const uint8_t* const (&panels)[kPanels], float* sums, int64_t first_token,
                 int tokens) {
  const int64_t words_per_token = outlier_words_per_token(task.panels.cols);
  for (int t = 0; t < tokens; ++t) {
    const int32_t* outliers = task.outliers + (first_token + t) * words_per_token;
    const int32_t count = outliers[0];
    if (count == 0 && panel_geometry(kFormat).scales != ScaleLayout::kNone) continue;
    for (int p = 0; p < kPanels; ++p) {
      float* sum = sums + (t * kPanels + p) * kPanelRows;
      Rows rows = load_rows(sum);
      for (int32_t i = 0; i < count; ++i) {
        const Rows value = set_rows(std::bit_cast<float>(outliers[2 + 2 * i]));
        rows = fma(panel_column<kFormat>(panels[p], outliers[1 + 2 * i]), value, rows);
      }
      if constexpr (panel_geometry(kFormat).scales == ScaleLayout::kNone) {
        rows = rows * load_rows(reinterpret_cast<const float*>(panels[p]));
      }
      store_rows(sum, rows);
    }
  }
}

// Panels panel .. panel + kPanels - 1, as far as they exist, of one token tile.
template <PanelFormat kFormat, int kPanels, int kTokens>
void run_tile(const LinearTask& task, int64_t panel, int64_t tile_index, size_t prefetch) {
  constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  const int present = static_cast<int>(task.panel_end - panel < kPanels ? task.panel_end - panel : kPanels);
  const uint8_t* panels[kPanels];
  for (int p = 0; p < kPanels; ++p) {  // a missing panel repeats the last one and is not stored
    panels[p] = task.panels.panel(panel + (p < present ? p : present - 1));
  }
  const int64_t token = task.tiles.begin(tile_index);
  const int32_t* activations =
      static_cast<const int32_t*>(task.activations) + token * activation_words_per_token(task.panels.cols);
  const int64_t blocks = (task.panels.cols + kGeometry.block_k() - 1) / kGeometry.block_k();

  Tile<kFormat, kPanels, kTokens> tile;
  tile.sum_all(panels, activations, blocks, prefetch);

  alignas(64) float sums[kTokens * kPanels * kPanelRows];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) store_rows(sums + (t * kPanels + p) * kPanelRows, tile.results[t][p]);
  }
  finish_tile<kFormat, kPanels>(task, panels, sums, token, kTokens);
  store_tile(task, {sums, kPanels * kPanelRows}, token, kTokens, panel, present);
}

template <PanelFormat kFormat, int kTokens>
void run_panels(const LinearTask& task, int64_t panel, int64_t tile, size_t prefetch) {
  run_tile<kFormat, int8_panels_per_tile(kTokens), kTokens>(task, panel, tile, prefetch);
}

using TileFn = void (*)(const LinearTask&, int64_t panel, int64_t tile, size_t prefetch);

template <PanelFormat kFormat, int kTokens = 1>
TM_INLINE TileFn tile_function(int tokens) {
  if constexpr (kTokens < kInt8MaxTokens) {
    if (tokens > kTokens) return tile_function<kFormat, kTokens + 1>(tokens);
  }
  return run_panels<kFormat, kTokens>;
}

template <PanelFormat kFormat>
void run(const LinearTask& task) {
  constexpr int kStep = int8_panels_per_tile(1);  // the widest: narrower tiles pass several times
  for (int64_t panel = task.panel_begin; panel < task.panel_end; panel += kStep) {
    const int64_t panel_end = panel + kStep < task.panel_end ? panel + kStep : task.panel_end;
    const bool more = panel_end < task.panels.count();
    for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      const int tokens = task.tiles.tokens(tile);
      const TileFn function = tile_function<kFormat>(tokens);
      const size_t prefetch = more && tile + 1 == task.tile_end ? kStep * task.panels.bytes_per_panel : 0;
      for (int64_t p = panel; p < panel_end; p += int8_panels_per_tile(tokens)) function(task, p, tile, prefetch);
    }
  }
}

template <PanelFormat... kFormats>
TM_INLINE void set_formats(LinearInt8Kernels& kernels) {
  ((kernels.run[static_cast<int>(kFormats)] = run<kFormats>), ...);
}

}  // namespace

void fill(LinearInt8Kernels& kernels) {
  kernels = {};
  kernels.max_tile_tokens = kInt8MaxTokens;
  set_formats<PanelFormat::kQ4_0, PanelFormat::kQ4_1, PanelFormat::kQ5_0, PanelFormat::kQ5_1, PanelFormat::kQ8_0,
              PanelFormat::kQ4_K, PanelFormat::kQ5_K, PanelFormat::kQ6_K, PanelFormat::kInt4Group,
              PanelFormat::kInt8Group, PanelFormat::kInt8Channel>(kernels);
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
