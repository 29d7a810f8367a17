// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "turbomind/layers/block.h"
#include "turbomind/layers/rms_norm.h"
#include "turbomind/layers/rope_table.h"
#include "turbomind/models/decoder_config.h"

namespace turbomind {

// One layer: attention and feed-forward network, each behind a norm and joined to the residual. The place where a
// LayerConfig becomes blocks.
class DecoderLayer {
 public:
  // ropes: the tables of config.ropes. prefix: "layers.0.".
  DecoderLayer(const LayerContext& context, const std::string& prefix, const DecoderConfig& config,
               const LayerConfig& layer, const std::vector<std::unique_ptr<RopeTable>>& ropes);

  // x: float [T, H], the residual after input_norm(); becomes the residual after next_norm.
  void forward(const StepContext& step, const Tensor& x, const Tensor& residual, const RmsNorm& next_norm) const;
  // The same for the wanted rows of x alone; the others and residual are undefined afterwards. The layer's state is
  // written for all T.
  void forward_rows(const StepContext& step, const Tensor& x, const Tensor& residual, const WantedRows& wanted,
                    const RmsNorm& next_norm) const;

  const RmsNorm& input_norm() const { return attention_norm_; }
  Block& attention() { return *attention_; }
  Block& ffn() { return *ffn_; }

 private:
  // From the attention's output x, float [T, H], on.
  void finish(const StepContext& step, const Tensor& x, const Tensor& residual, const RmsNorm& next_norm) const;

  RmsNorm attention_norm_;
  std::unique_ptr<Block> attention_;
  std::optional<RmsNorm> post_attention_norm_;
  RmsNorm ffn_norm_;
  std::unique_ptr<Block> ffn_;
  std::optional<RmsNorm> post_ffn_norm_;
};

}  // namespace turbomind
