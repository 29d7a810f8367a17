// SPDX-License-Identifier: Apache-2.0
#include "ops.h"

namespace turbomind::ascend {
namespace {

const Weight& weight_arg(const tm_weight* handle, const tm_tensor& x) {
  require(handle != nullptr, "weight", "a weight");
  const Weight& weight = *abi::as<const Weight>(handle);
  require(acl_type(x.dtype) == weight.layout().type, "x", "the dtype that the weight was packed for");
  require_rank(x, 2, "x");
  require(x.shape[1] == weight.layout().cols, "x",
          std::to_string(weight.layout().cols) + " columns, found " + std::to_string(x.shape[1]));
  return weight;
}

// int8 by int8, summed exactly: every row of x gets a scale of its own.
void multiply_channels(Launch& launch, const View& x, const Weight& weight, const View& out) {
  const Operators& op = library().op;
  const View source = contiguous_copy(launch, x);
  const View codes = launch.take(kAclInt8, {x.dim(0), x.dim(1)});
  const View scales = launch.take(kAclFloat, {x.dim(0)});
  launch(op.DynamicQuant, source, nullptr, codes, scales);
  constexpr auto none = nullptr;
  constexpr bool kTurnWeight = true;
  if (op.QuantMatmulV5.available()) {
    constexpr int64_t kNoGroups = 0;
    launch(op.QuantMatmulV5, codes, weight.codes(), scales, weight.scales(), none, none, none, none, none, false,
           kTurnWeight, kNoGroups, out);
  } else {
    launch(op.QuantMatmulV4, codes, weight.codes(), weight.scales(), none, scales, none, false, kTurnWeight, out);
  }
}

void multiply_groups(Launch& launch, const View& x, const Weight& weight, const View& out) {
  const WeightLayout& layout = weight.layout();
  const View source = contiguous_copy(launch, x);
  const bool odd = layout.width != layout.rows;
  const View product = odd ? launch.take(x.type, {x.dim(0), layout.width}) : out;
  const auto group = static_cast<int>(layout.group < layout.cols ? layout.group : 0);  // 0: one scale a column
  launch(library().op.WeightQuantBatchMatmulV2, source, weight.codes(), weight.scales(), weight.offsets(), nullptr,
         nullptr, nullptr, group, product);
  if (odd) launch.copy(out, product.slice(1, 0, layout.rows));
}

// Into out, contiguous and in the dtype of x.
void multiply(Launch& launch, const View& x, const Weight& weight, const View& out) {
  const WeightLayout& layout = weight.layout();
  if (layout.grouped()) return multiply_groups(launch, x, weight, out);
  if (!layout.dense()) return multiply_channels(launch, x, weight, out);
  const Operators& op = library().op;
  launch(layout.nz ? op.MatmulWeightNz : op.Matmul, x, weight.transposed(), out, kCubeKeepDtype);
}

// One weight's product with bias and activation. The product is in the operands' dtype and contiguous.
void run(Launch& launch, const tm_linear_args& args, int32_t i) {
  const Weight& weight = weight_arg(args.weight[i], args.x);
  const tm_tensor& target = args.out[i];
  require_rank(target, 2, "out");
  require(target.dtype == TM_F32 || target.dtype == args.x.dtype, "out", "float32 or the dtype of x");
  require(target.shape[0] == args.x.shape[0] && target.shape[1] == weight.layout().rows, "out",
          std::to_string(args.x.shape[0]) + " rows of " + std::to_string(weight.layout().rows));
  if (args.x.shape[0] == 0) return;
  const View x = make_view(args.x);
  const View out = make_view(target);
  const Launch::Scope scope(launch);
  const bool direct = !launch.counting() && out.type == x.type && out.contiguous() && !given(args.bias[i]) &&
                      args.activation == TM_ACTIVATION_NONE;
  if (direct) return multiply(launch, x, weight, out);
  const View product = launch.take(x.type, {out.dim(0), out.dim(1)});
  multiply(launch, x, weight, product);
  View last = product;
  if (given(args.bias[i]) || launch.counting()) {
    // In float32 until the last rounding.
    const View sum = launch.take(kAclFloat, {out.dim(0), out.dim(1)});
    launch(library().op.Add, product, make_view(args.bias[i]), Number{1}, sum);
    last = sum;
  }
  if (args.activation != TM_ACTIVATION_NONE) activate(launch, last, args.activation, last);
  launch.copy(out, last);
}

}  // namespace

void compose(Launch& launch, const tm_linear_args& args) {
  require(args.num_weights >= 1 && args.num_weights <= TM_MAX_FUSED_WEIGHTS, "num_weights",
          "at least 1 and at most " + std::to_string(TM_MAX_FUSED_WEIGHTS));
  for (int32_t i = 0; i < args.num_weights; ++i) run(launch, args, i);
}

void compose(Launch& launch, const tm_grouped_linear_args& args) {
  const Operators& op = library().op;
  const Weight& weight = weight_arg(args.weight, args.x);
  const int64_t experts = weight.layout().experts;
  require(experts > 0, "weight", "one of experts");
  require(args.out.shape[1] == weight.layout().rows, "out",
          std::to_string(weight.layout().rows) + " columns, found " + std::to_string(args.out.shape[1]));
  const int64_t rows = args.x.shape[0];
  if (rows == 0) return;
  constexpr int64_t kOneOutput = 3;       // splitItem
  constexpr int64_t kRowsAreGrouped = 0;  // groupType
  constexpr int64_t kCumulative = 0;      // groupListType
  constexpr int64_t kNoActivation = 0;
  const View ends = launch.take(kAclInt64, {experts});
  launch(op.Cast, make_view(args.expert_offsets).slice(0, 1, experts), static_cast<int>(kAclInt64), ends);
  const View x = contiguous_copy(launch, make_view(args.x));
  const View result = launch.take(x.type, {rows, weight.layout().rows});
  launch(op.GroupedMatmulV4, Views{{x}}, Views{{weight.transposed()}}, nullptr, nullptr, nullptr, nullptr, nullptr,
         nullptr, ends, nullptr, nullptr, nullptr, kOneOutput, kRowsAreGrouped, kCumulative, kNoActivation,
         Views{{result}}, nullptr, nullptr);
  launch.copy(make_view(args.out), result);
}

}  // namespace turbomind::ascend
