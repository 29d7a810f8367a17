// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "turbomind/layers/linear.h"

namespace turbomind {

// The token table, [vocab, hidden]. Ranks split the vocabulary where it divides, else each holds all of it.
class Embedding {
 public:
  Embedding(const LayerContext& context, const std::string& name, int64_t vocab_size, int64_t hidden_size);

  // ids: i32 [T]; out: float [T, hidden], rows of the table times scale.
  void forward(const StepContext& step, const Tensor& ids, float scale, const Tensor& out) const;
  const Linear& table() const { return table_; }

 private:
  int64_t vocab_size_;
  Range my_rows_;
  Linear table_;
};

// Hidden states to logits. Ranks split the vocabulary like Embedding and gather the logits.
class LmHead {
 public:
  // tied: the table whose weight this head shares, or null for a weight of its own, "lm_head".
  LmHead(const LayerContext& context, int64_t vocab_size, int64_t hidden_size, const Embedding* tied);

  // x: float [R, hidden]; returns f32 [R, vocab] in the arena, the same on every rank.
  Tensor forward(Ops& ops, Arena& arena, Comm* comm, const Tensor& x) const;

 private:
  int64_t vocab_size_;
  std::optional<Linear> own_;
  const Linear& weight_;
};

}  // namespace turbomind
