// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "turbomind/layers/linear.h"
#include "turbomind/layers/norm.h"
#include "vision/encoder/encoder_config.h"

namespace turbomind {

// From encoder rows to embeddings of the decoder; what it does is in ProjectorConfig.
class Projector {
 public:
  // prefix: "vision.projector."; weights norm, linear_1 and, with two linears, linear_2.
  Projector(const LayerContext& context, const std::string& prefix, const ProjectorConfig& config, int64_t hidden_size,
            int64_t out_hidden_size);

  // x: float [R, hidden], changed; groups: i32 [R / merge_size, merge_size], 0, 1, 2, ..., and averages: f32, as large,
  // 1 / merge_size each, both only if rows are averaged; out: float [R / merge_size, out_hidden], rows may be strided.
  void forward(const StepContext& step, const Tensor& x, const Tensor& groups, const Tensor& averages,
               const Tensor& out) const;

 private:
  int64_t merged_size() const { return config_.average ? hidden_size_ : hidden_size_ * config_.merge_size; }
  // [R, hidden] -> [R / merge_size, merged_size()].
  Tensor merge(const StepContext& step, const Tensor& x, const Tensor& groups, const Tensor& averages) const;

  const ProjectorConfig config_;
  const int64_t hidden_size_;
  std::optional<Norm> norm_;
  Linear linear_1_;
  std::optional<Linear> linear_2_;
};

}  // namespace turbomind
