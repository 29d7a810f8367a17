// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "turbomind/runtime/input_buffer.h"
#include "vision/encoder/encoder_item.h"

namespace turbomind {

// The arrays of several items one after another, on the device. What the encoder does not need is not given.
struct EncoderBatch {
  int64_t num_rows = 0;
  int64_t num_merge_rows = 0;  // that enter the projector
  int64_t num_projected = 0;
  int64_t num_tokens = 0;
  std::vector<int32_t> cu_segments;  // host [segments + 1]
  std::vector<int32_t> cu_windows;   // host [windows + 1]; empty for encoders without
  Tensor pixels{};                   // f32 [num_rows, patch_dim]
  Tensor positions{};                // i32 [3, num_rows]: zeros, rows, columns
  Tensor table_rows{};               // i32 [num_rows * taps]
  Tensor table_order{};              // i32 [num_rows, taps]: 0, 1, 2, ...; for taps > 1, as the next
  Tensor table_weights{};            // f32 [num_rows, taps]
  Tensor merge{};                    // i32 [num_merge_rows]
  Tensor groups{};                   // i32 [num_projected, merge_size]: 0, 1, 2, ...; for averages, as the next
  Tensor averages{};                 // f32 [num_projected, merge_size]
  Tensor newline_ids{};              // i32 [1]: 0; for encoders with a newline
  Tensor output_rows{};              // i32 [num_tokens * taps]
  Tensor output_order{};             // i32 [num_tokens, taps]; for taps > 1, as the next
  Tensor output_weights{};           // f32 [num_tokens, taps]
};

// Bounds of a batch: every item may need all its rows.
struct EncoderLimits {
  int64_t max_rows = 0;
  int32_t max_table_taps = 4;
  int32_t max_output_taps = 4;
};

// Writes the items' arrays into the buffer and sends them.
EncoderBatch build_batch(std::span<const EncoderItem* const> items, const EncoderConfig& config, InputBuffer& buffer);
// A batch of shapes alone, the largest within the limits.
EncoderBatch largest_batch(const EncoderConfig& config, const EncoderLimits& limits, Arena& inputs);

}  // namespace turbomind
