// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vision/encoder/encoder_config.h"

namespace turbomind {

// Rows of a matrix summed with weights, [n, width] row-major; without weights width is 1 and the row itself is meant.
struct WeightedRows {
  int32_t width = 0;  // 0: not given
  std::vector<int32_t> rows;
  std::vector<float> weights;

  int64_t count() const { return width ? static_cast<int64_t>(rows.size()) / width : 0; }
};

// One picture, tile or slice of a video as Python's manymind.vision.types.EncoderInput describes it.
struct EncoderItem {
  std::string digest;  // stands for the content: equal only for equal items of one model
  int64_t num_rows = 0;
  int64_t num_tokens = 0;         // embeddings that come out
  const float* pixels = nullptr;  // host [num_rows, patch_dim]
  size_t pixel_bytes = 0;
  std::shared_ptr<const void> owner;  // of pixels
  std::vector<int32_t> segments;      // rows of each group that attends to itself
  std::vector<int32_t> windows;       // the same in layers with windows
  std::vector<int32_t> positions;     // [2, num_rows]: row and column of each patch
  WeightedRows table;                 // of the position table, per row
  std::vector<int32_t> merge;         // order in which rows enter the projector; empty: as they are
  WeightedRows output;                // of the projected rows, per token; the row after the last is the newline

  // Rows that come out of the projector.
  int64_t num_projected(int32_t merge_size) const {
    return (merge.empty() ? num_rows : static_cast<int64_t>(merge.size())) / merge_size;
  }
};

// Tokens that an item of so many projected rows may have at most; more would be repetitions.
int64_t max_item_tokens(int64_t num_projected);

// Throws kInvalidArgument naming the field unless the encoder can read the item: sizes fit together and every index
// stays inside what it points into.
void validate(const EncoderItem& item, const EncoderConfig& config);

}  // namespace turbomind
