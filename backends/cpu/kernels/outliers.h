// SPDX-License-Identifier: Apache-2.0
//
// The end of a tile of integer products, shared by the kernels that make them.
#pragma once

#include "kernels/epilogue.h"
#include "kernels/rows.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

// Adds the outliers' products to a tile's sums [tokens][kPanels][16 rows], then applies channel scales. column(p, k)
// gives the values of panel p.
template <PanelFormat kFormat, int kPanels, class Column>
TM_INLINE void finish_tile(const LinearTask& task, const uint8_t* const (&panels)[kPanels], int64_t first_token,
                           int tokens, Column&& column, float* sums) {
  constexpr bool kScaleRows = panel_geometry(kFormat).scales == ScaleLayout::kNone;
  const int64_t words_per_token = outlier_words_per_token(task.panels.cols);
  for (int t = 0; t < tokens; ++t, sums += kPanels * kPanelRows) {
    const int32_t* outlier = task.outliers + (first_token + t) * words_per_token;
    const int32_t count = *outlier++;
    if (count == 0 && !kScaleRows) continue;
    Rows rows[kPanels];
    for (int p = 0; p < kPanels; ++p) rows[p] = load_rows(sums + p * kPanelRows);
    for (int32_t i = 0; i < count; ++i, outlier += 2) {
      const Rows value = set_rows(std::bit_cast<float>(outlier[1]));
      for (int p = 0; p < kPanels; ++p) rows[p] = fma(column(p, static_cast<uint32_t>(outlier[0])), value, rows[p]);
    }
    for (int p = 0; p < kPanels; ++p) {
      if constexpr (kScaleRows) rows[p] = rows[p] * load_rows(reinterpret_cast<const float*>(panels[p]));
      store_rows(sums + p * kPanelRows, rows[p]);
    }
  }
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
