// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/ffn.h"

namespace turbomind {

Ffn::Ffn(const LayerContext& context, const std::string& prefix, const FfnConfig& config, int64_t hidden_size)
    : config_(config),
      features_(equal_share("intermediate_size", config.intermediate_size, context.rank(), context.world_size())),
      gate_proj_(context, {{prefix + "gate_proj", config.intermediate_size, features_}}, hidden_size,
                 whole(hidden_size), config.bias),
      up_proj_(context, {{prefix + "up_proj", config.intermediate_size, features_}}, hidden_size, whole(hidden_size),
               config.bias),
      down_proj_(context, {{prefix + "down_proj", hidden_size, whole(hidden_size)}}, config.intermediate_size,
                 features_, config.bias) {}

void Ffn::forward(const StepContext& step, const Tensor& x) const {
  const Arena::Scope scope(step.arena);
  const Tensor intermediate = step.arena.allocate("intermediate", x.dtype, {x.shape[0], features_.count});
  // Two weights of one call: the backend's fused op, or two linears that share their input's quantisation.
  step.ops.linear_gated_activation({.x = x,
                                    .gate = gate_proj_.weight(),
                                    .up = up_proj_.weight(),
                                    .gate_bias = gate_proj_.bias(),
                                    .up_bias = up_proj_.bias(),
                                    .kind = config_.activation,
                                    .out = intermediate});
  down_proj_.forward(step.ops, intermediate, x);
}

}  // namespace turbomind
