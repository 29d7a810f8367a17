// SPDX-License-Identifier: Apache-2.0
#include "vision/encoder/projector.h"

#include <vector>

namespace turbomind {

Projector::Projector(const LayerContext& context, const std::string& prefix, const ProjectorConfig& config,
                     int64_t hidden_size, int64_t out_hidden_size)
    : config_(config),
      hidden_size_(hidden_size),
      linear_1_(context,
                {{prefix + "linear_1", config.hidden_size ? config.hidden_size : out_hidden_size,
                  whole(config.hidden_size ? config.hidden_size : out_hidden_size)}},
                merged_size(), whole(merged_size()), config.bias) {
  if (config.norm) {
    const int64_t norm_size = config.norm_after_merge ? merged_size() : hidden_size;
    norm_.emplace(context, prefix + "norm", config.norm_kind, norm_size, config.norm_eps);
  }
  if (config.hidden_size == 0) return;
  linear_2_.emplace(context, std::vector<LinearPart>{{prefix + "linear_2", out_hidden_size, whole(out_hidden_size)}},
                    config.hidden_size, whole(config.hidden_size), config.bias);
}

void Projector::forward(const StepContext& step, const Tensor& x, const Tensor& groups, const Tensor& averages,
                        const Tensor& out) const {
  const Arena::Scope scope(step.arena);
  if (norm_ && !config_.norm_after_merge) norm_->forward(step.ops, x, x);
  const Tensor merged = merge(step, x, groups, averages);
  if (norm_ && config_.norm_after_merge) norm_->forward(step.ops, merged, merged);
  if (!linear_2_) return linear_1_.forward(step.ops, merged, out);
  const Tensor inner = step.arena.allocate("vision_projection", x.dtype, {merged.shape[0], config_.hidden_size});
  linear_1_.forward(step.ops, merged, inner, config_.activation);
  linear_2_->forward(step.ops, inner, out);
}

Tensor Projector::merge(const StepContext& step, const Tensor& x, const Tensor& groups, const Tensor& averages) const {
  const int64_t num_merged = x.shape[0] / config_.merge_size;
  if (!config_.average) return reshape(x, {num_merged, merged_size()});
  const Tensor merged = step.arena.allocate("vision_averages", x.dtype, {num_merged, hidden_size_});
  // Weighted sums of rows are what the op for mixtures of experts computes.
  step.ops.moe_combine({.x = x, .position = groups, .weights = averages, .out = merged});
  return merged;
}

}  // namespace turbomind
