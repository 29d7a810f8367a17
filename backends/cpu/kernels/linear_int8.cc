// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear_int8.h"

#include "kernels/dequantize.h"
#include "kernels/outliers.h"

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
    Dot<T::kBits> dots[kTokens][kPanels];
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const Sums initial = initial_sums(activations + t, half);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) dots[t][p].sums = initial;
    }
    const int codes_at = T::kGeometry.scale_bytes + group * T::kGeometry.group_code_bytes();
    for_each_step<T::GroupCodes::kSteps>([&](auto step) TM_INLINE_LAMBDA {
      constexpr int kStep = decltype(step)::value;
      CodesPair codes[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) codes[p] = T::GroupCodes::template step<kStep>(block[p] + codes_at);
      const int32_t* first = activations + half * T::kQuads + T::GroupCodes::first_quad(kStep);
      const int32_t* second = activations + half * T::kQuads + T::GroupCodes::second_quad(kStep);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const Quad quad = load_quad(first + t * kCodeWords);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) dots[t][p].template add<2 * kStep>(codes[p].first, quad);
      }
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const Quad quad = load_quad(second + t * kCodeWords);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) dots[t][p].template add<2 * kStep + 1>(codes[p].second, quad);
      }
    });
    const float* scales = reinterpret_cast<const float*>(activations);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const Rows scale = T::GroupScales::scale(block[p], group);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const Rows product = scale * set_rows(scales[kScaleWord * kTokens + t]);
        results[t][p] = fma(to_rows(dots[t][p].sums), product, results[t][p]);
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

// Panels [begin, end) that all tiles of a task pass before the next ones.
struct PanelStep {
  int64_t begin;
  int64_t end;
  const float* columns;  // of these panels, outlier_panel_floats() each; nullptr: expand a column where it is needed
  size_t prefetch;       // distance to the bytes that the next step reads; 0 for none
};

// Panels panel .. panel + kPanels - 1, as far as the step has them, of one token tile.
template <PanelFormat kFormat, int kPanels, int kTokens>
void run_tile(const LinearTask& task, const PanelStep& step, int64_t panel, int64_t tile_index) {
  constexpr PanelGeometry kGeometry = panel_geometry(kFormat);
  const int present = static_cast<int>(step.end - panel < kPanels ? step.end - panel : kPanels);
  const uint8_t* panels[kPanels];
  const float* columns[kPanels] = {};
  for (int p = 0; p < kPanels; ++p) {  // a missing panel repeats the last one and is not stored
    const int64_t index = panel + (p < present ? p : present - 1);
    panels[p] = task.panels.panel(index);
    if (step.columns) columns[p] = step.columns + (index - step.begin) * outlier_panel_floats(task.panels.cols);
  }
  const int64_t token = task.tiles.begin(tile_index);
  const int32_t* activations =
      static_cast<const int32_t*>(task.activations) + token * activation_words_per_token(task.panels.cols);
  const int64_t blocks = (task.panels.cols + kGeometry.block_k() - 1) / kGeometry.block_k();

  Tile<kFormat, kPanels, kTokens> tile;
  tile.sum_all(panels, activations, blocks, step.prefetch);

  alignas(64) float sums[kTokens * kPanels * kPanelRows];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) store_rows(sums + (t * kPanels + p) * kPanelRows, tile.results[t][p]);
  }
  if (step.columns) {
    const auto column = [&](int p, uint32_t k)
                            TM_INLINE_LAMBDA { return load_rows(columns[p] + size_t{k} * kPanelRows); };
    finish_tile<kFormat>(task, panels, token, kTokens, column, sums);
  } else {
    const auto column = [&](int p, uint32_t k) TM_INLINE_LAMBDA { return panel_column<kFormat>(panels[p], k); };
    finish_tile<kFormat>(task, panels, token, kTokens, column, sums);
  }
  store_tile(task, {sums, kPanels * kPanelRows}, token, kTokens, panel, present);
}

template <PanelFormat kFormat, int kTokens>
void run_panels(const LinearTask& task, const PanelStep& step, int64_t panel, int64_t tile) {
  run_tile<kFormat, int8_panels_per_tile(kTokens), kTokens>(task, step, panel, tile);
}

using TileFn = void (*)(const LinearTask&, const PanelStep& step, int64_t panel, int64_t tile);

template <PanelFormat kFormat, int kTokens = 1>
TM_INLINE TileFn tile_function(int tokens) {
  if constexpr (kTokens < kInt8MaxTokens) {
    if (tokens > kTokens) return tile_function<kFormat, kTokens + 1>(tokens);
  }
  return run_panels<kFormat, kTokens>;
}

// Expanding whole panels costs as much as the single columns that about this many tokens need.
constexpr int64_t kColumnTokens = 96;

template <PanelFormat kFormat>
const float* expand_columns(const LinearTask& task, int64_t panel, int64_t panel_end) {
  float* columns = task.scratch;
  for (; panel < panel_end; ++panel, columns += outlier_panel_floats(task.panels.cols)) {
    Expander<kFormat>::expand(task.panels.panel(panel), 0, columns, task.panels.cols);
  }
  return task.scratch;
}

template <PanelFormat kFormat>
void run(const LinearTask& task) {
  constexpr int kWidest = int8_panels_per_tile(1);  // narrower tiles pass a step several times
  static_assert(kExpandedK % panel_geometry(kFormat).block_k() == 0);
  if (task.tile_begin == task.tile_end) return;
  const int64_t tokens = task.tiles.begin(task.tile_end) - task.tiles.begin(task.tile_begin);
  const bool expand = tokens >= kColumnTokens && task.panels.cols <= kMaxOutlierCols;
  const int64_t panels = expand ? kOutlierPanels : kWidest;
  for (PanelStep step{task.panel_begin, 0, nullptr, 0}; step.begin < task.panel_end; step.begin = step.end) {
    step.end = step.begin + panels < task.panel_end ? step.begin + panels : task.panel_end;
    if (expand) step.columns = expand_columns<kFormat>(task, step.begin, step.end);
    for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      const int tile_tokens = task.tiles.tokens(tile);
      const TileFn function = tile_function<kFormat>(tile_tokens);
      const bool last = tile + 1 == task.tile_end && step.end < task.panels.count();
      step.prefetch = last ? panels * task.panels.bytes_per_panel : 0;
      for (int64_t p = step.begin; p < step.end; p += int8_panels_per_tile(tile_tokens)) function(task, step, p, tile);
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
