// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/linear.h"

#include <algorithm>
#include <utility>

#include "turbomind/layers/weight_slice.h"

namespace turbomind {
namespace {

bool same_format(const WeightSource& a, const WeightSource& b) {
  return a.format == b.format && a.scale_dtype == b.scale_dtype && a.group_size == b.group_size &&
         (a.zeros == nullptr) == (b.zeros == nullptr);
}

}  // namespace

Linear::Linear(const LayerContext& context, std::vector<LinearPart> parts, int64_t cols, Range my_cols, bool bias,
               bool is_embedding)
    : context_(context),
      parts_(std::move(parts)),
      my_cols_(my_cols),
      is_embedding_(is_embedding),
      sources_(parts_.size()) {
  for (const LinearPart& part : parts_) out_features_ += part.my_rows.count;
  const bool holds_bias = bias && (my_cols.count == cols || context.rank() == 0);
  if (holds_bias) bias_.emplace(context.weights, out_features_);
  int64_t begin = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    context.weights.declare(parts_[i].name, parts_[i].rows, cols,
                            [this, i](const WeightSource& source) { take(i, source); });
    if (bias) declare_bias(parts_[i], holds_bias, begin);
    begin += parts_[i].my_rows.count;
  }
}

void Linear::declare_bias(const LinearPart& part, bool held, int64_t begin) {
  context_.weights.declare(part.name + ".bias", part.rows, 1,
                           [this, held, begin, rows = part.my_rows](const WeightSource& source) {
                             if (held) bias_->load(source, rows, begin);
                           });
}

void Linear::take(size_t part, const WeightSource& source) {
  sources_[part] = context_.weights.in_wanted_format(source, describe(source, out_features_));
  const auto is_there = [](const WeightSource& s) { return s.data != nullptr; };
  if (std::all_of(sources_.begin(), sources_.end(), is_there)) pack();
}

void Linear::pack() {
  std::vector<PackedWeight> packed;
  for (size_t begin = 0; begin < sources_.size();) {
    size_t end = begin + 1;
    while (end < sources_.size() && same_format(sources_[begin], sources_[end])) ++end;
    packed.push_back(pack_neighbours(begin, end));
    begin = end;
  }
  weights_ = std::move(packed);
  // The activations of int8_channel are rounded further than to bf16.
  const auto is_rounding = [](const WeightSource& source) {
    return source.format == TM_WEIGHT_BF16 || source.format == TM_WEIGHT_INT8_CHANNEL;
  };
  const bool rounds =
      context_.compute == TM_COMPUTE_DEFAULT && std::all_of(sources_.begin(), sources_.end(), is_rounding);
  product_dtype_ = rounds ? TM_BF16 : TM_F32;
  sources_.clear();
}

PackedWeight Linear::pack_neighbours(size_t begin, size_t end) const {
  std::vector<tm_weight_part> parts;
  auto owners = std::make_shared<std::vector<std::shared_ptr<const void>>>();
  int64_t rows = 0;
  for (size_t i = begin; i < end; ++i) {
    parts.push_back(slice_weight(sources_[i], parts_[i].my_rows, my_cols_));
    owners->push_back(sources_[i].owner);
    rows += parts_[i].my_rows.count;
  }
  tm_weight_desc desc = describe(sources_[begin], rows);
  desc.parts = parts.data();
  desc.num_parts = static_cast<int32_t>(parts.size());
  return context_.weights.pack(desc, owners);
}

tm_weight_desc Linear::describe(const WeightSource& source, int64_t rows) const {
  return {.format = source.format,
          .compute = context_.compute,
          .scale_dtype = source.scale_dtype,
          .group_size = source.group_size,
          .is_embedding = is_embedding_,
          .rows = rows,
          .cols = my_cols_.count,
          .activation_dtype = context_.activation_dtype};
}

void Linear::forward(Ops& ops, const Tensor& x, const Tensor& out, tm_activation_kind activation) const {
  tm_linear_args args{.x = x, .num_weights = static_cast<int32_t>(weights_.size()), .activation = activation};
  int64_t begin = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    const int64_t rows = weights_[i].rows();
    args.weight[i] = weights_[i].handle();
    args.out[i] = column_slice(out, begin, rows);
    if (bias_) args.bias[i] = row_slice(bias_->tensor(), begin, rows);
    begin += rows;
  }
  ops.linear(args);
}

}  // namespace turbomind
