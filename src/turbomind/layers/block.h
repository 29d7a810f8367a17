// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "turbomind/layers/kv_pool.h"
#include "turbomind/layers/layer_context.h"

namespace turbomind {

// One half of a decoder layer, between a norm and the residual: attention or a feed-forward network of any kind.
class Block {
 public:
  Block() = default;
  virtual ~Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // Replaces x, float [T, H], by the block's output. With several ranks that is a partial sum; the caller adds it up.
  virtual void forward(const StepContext& step, const Tensor& x) const = 0;
  // out, float [R, H], becomes the wanted rows of the output. x is scratch from then on. With R = 0 the block's state
  // alone is written.
  virtual void forward_rows(const StepContext& step, const Tensor& x, const WantedRows& wanted,
                            const Tensor& out) const {
    forward(step, x);
    if (wanted.count() > 0) step.ops.gather_rows({.in = x, .index = wanted.rows, .out = out});
  }
  // The block's paged state, null if it keeps none.
  virtual KvPool* kv_pool() { return nullptr; }
  // What plans have to know of the block's attention calls, if it makes any.
  virtual std::optional<tm_attention_shape> attention_shape() const { return std::nullopt; }
};

}  // namespace turbomind
