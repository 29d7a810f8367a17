// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <span>

#include "turbomind/layers/block_config.h"
#include "turbomind/layers/layer_context.h"

namespace turbomind {

// cos(p * inv_freq) and sin(p * inv_freq) for positions from first_position on, times attention_factor: float32 rounded
// once from float64 with an error below 1e-12. out: [positions, dim], dim / 2 cosines, then as many sines.
void compute_rope_table(const RopeConfig& config, int64_t first_position, std::span<float> out);

// The table on the device, shared by all layers that rotate the same way.
class RopeTable {
 public:
  RopeTable(WeightStore& store, const RopeConfig& config, int64_t num_positions);

  Tensor cos_sin() const { return make_tensor(buffer_.data(), TM_F32, {num_positions_, dim_}); }
  int32_t dim() const { return dim_; }
  tm_rope_style style() const { return style_; }
  // The op's arguments but for q, k and positions.
  tm_rope_args args() const;

 private:
  int64_t num_positions_;
  int32_t dim_;
  tm_rope_style style_;
  std::array<int32_t, 3> mrope_section_;
  bool mrope_interleaved_;
  Buffer buffer_;
};

}  // namespace turbomind
