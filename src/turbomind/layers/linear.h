// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "turbomind/layers/float_vector.h"
#include "turbomind/layers/layer_context.h"

namespace turbomind {

// One weight of a fused linear, [rows, cols] in the checkpoint.
struct LinearPart {
  std::string name;
  int64_t rows;   // of the whole weight
  Range my_rows;  // what this rank holds
};

// out = x * weight^T + bias for one or several weights that share their input (q/k/v), as one op call whose outputs lie
// side by side. Neighbours of one format are packed as one weight; others (GGUF files mix formats) stay apart.
//
// Ranks split a weight by rows (column parallel in Megatron's words, which count in x * W: no exchange needed) or by
// columns (row parallel: the outputs are partial sums, which the caller reduces; rank 0 alone adds the bias).
class Linear {
 public:
  // cols, my_cols: input features of the whole weight and of this rank. bias: every part has "<name>.bias", [rows].
  Linear(const LayerContext& context, std::vector<LinearPart> parts, int64_t cols, Range my_cols, bool bias,
         bool is_embedding = false);
  Linear(const Linear&) = delete;
  Linear& operator=(const Linear&) = delete;

  // x: float [T, in_features()]; out: float or f32 [T, out_features()], the activation applied.
  void forward(Ops& ops, const Tensor& x, const Tensor& out, tm_activation_kind activation = TM_ACTIVATION_NONE) const;

  int64_t in_features() const { return my_cols_.count; }
  int64_t out_features() const { return out_features_; }
  // What the operands of its products may be rounded to, whoever else multiplies what comes out: TM_BF16 if all weights
  // are bfloat16 or int8_channel and may be computed with as the backend likes best, else TM_F32.
  DType product_dtype() const { return product_dtype_; }
  // The packed weight; for linears of one part.
  const tm_weight* weight() const { return weights_.front().handle(); }
  // f32 [out_features()], or not given.
  Tensor bias() const { return bias_ ? bias_->tensor() : Tensor{}; }

 private:
  void declare_bias(const LinearPart& part, bool held, int64_t begin);
  void take(size_t part, const WeightSource& source);
  void pack();
  PackedWeight pack_neighbours(size_t begin, size_t end) const;
  // Of so many rows in the source's format, without the data.
  tm_weight_desc describe(const WeightSource& source, int64_t rows) const;

  const LayerContext& context_;
  std::vector<LinearPart> parts_;
  Range my_cols_;
  bool is_embedding_;
  int64_t out_features_ = 0;
  DType product_dtype_ = TM_F32;
  std::vector<WeightSource> sources_;  // until all parts are there
  std::vector<PackedWeight> weights_;
  std::optional<FloatVector> bias_;
};

}  // namespace turbomind
