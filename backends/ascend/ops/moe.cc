// SPDX-License-Identifier: Apache-2.0
#include "context.h"
#include "ops.h"

namespace turbomind::ascend {
namespace {

Number int32(int64_t value) { return {static_cast<double>(value), kAclInt32}; }

// Memory that an operator which writes contiguous tensors takes for `out`: itself, or scratch memory to copy from.
View contiguous_output(Launch& launch, const View& out) {
  if (out.contiguous() && reinterpret_cast<uintptr_t>(out.data) % 32 == 0 && !launch.counting()) return out;
  return launch.take(out.type, {out.size()});
}

void finish_output(Launch& launch, const View& out, const View& written) {
  if (written.data != out.data) launch.copy(out, written);
}

// MoeInitRoutingV2 sorts the pairs as its makers' public test has it, stably, so that it gives what the contract asks.
void permute_at_once(Launch& launch, const tm_moe_permute_args& args) {
  constexpr int64_t kDropless = 0;    // activeNum, dropPadMode
  constexpr int64_t kNoCapacity = 0;  // expertCapacity
  constexpr int64_t kCumulative = 1;  // expertTokensCountOrCumsumFlag
  const Operators& op = library().op;
  const int64_t experts = args.num_experts;
  const int64_t pairs = args.expert_ids.shape[0] * args.expert_ids.shape[1];
  const View offsets = make_view(args.expert_offsets);
  const View out = make_view(args.out);
  const View position = make_view(args.position);
  const View ends = launch.take(kAclInt32, {experts});
  const View unused = launch.take(kAclInt32, {experts});  // no document says that it may be left out
  const View rows = contiguous_output(launch, out).reshaped({pairs, out.dim(1)});
  const View places = contiguous_output(launch, position).reshaped({pairs});
  launch(op.MoeInitRoutingV2, make_view(args.x), make_view(args.expert_ids), kDropless, kNoCapacity, experts, kDropless,
         kCumulative, false, rows, places, ends, unused);
  launch(op.InplaceZero, offsets.slice(0, 0, 1));
  launch.copy(offsets.slice(0, 1, experts), ends);
  finish_output(launch, out, rows);
  finish_output(launch, position, places.reshaped({position.dim(0), position.dim(1)}));
}

// The same of small operators.
void permute_by_sort(Launch& launch, const tm_moe_permute_args& args) {
  const Operators& op = library().op;
  const int64_t tokens = args.x.shape[0];
  const int64_t top_k = args.expert_ids.shape[1];
  const int64_t pairs = tokens * top_k;
  const int64_t experts = args.num_experts;
  const View offsets = make_view(args.expert_offsets);
  const View ids = launch.take(kAclInt32, {pairs});
  const View wide_ids = launch.take(kAclFloat, {pairs});
  const View sorted = launch.take(kAclFloat, {pairs});
  const View order = launch.take(kAclInt64, {pairs});
  const View source = launch.take(kAclInt64, {pairs});
  const View quotient = launch.take(kAclFloat, {pairs});
  const View count_up = launch.take(kAclInt32, {pairs});
  const View position = launch.take(kAclInt32, {pairs});
  const View numbers = launch.take(kAclInt32, {experts + 1, 1});
  const View smaller = launch.take(kAclBool, {experts + 1, pairs});
  const View counts = launch.take(kAclInt64, {experts + 1});
  const View x = make_view(args.x);
  const View rows = launch.take(x.type, {pairs, x.dim(1)});
  launch.copy(ids.split(0, top_k), make_view(args.expert_ids));
  // Expert numbers are exact in float32, which is what the sort is fast on.
  launch.copy(wide_ids, ids);
  launch(op.Sort, wide_ids, true, int64_t{-1}, false, sorted, order);
  // Row of pair p: p / top_k, exact while there are fewer than 2^21 pairs.
  constexpr int64_t kMostPairs = int64_t{1} << 21;
  require_supported(pairs < kMostPairs, "moe_permute: more than 2^21 pairs of tokens and experts");
  launch.copy(quotient, order);
  launch(op.Adds, quotient, Number{0.5}, Number{1}, quotient);
  launch(op.Muls, quotient, Number{1.0 / static_cast<double>(top_k)}, quotient);
  launch(op.Cast, quotient, static_cast<int>(kAclInt64), source);
  launch(op.IndexSelect, x, int64_t{0}, source, rows);
  launch.copy(make_view(args.out), rows);
  launch(op.Arange, int32(0), int32(pairs), int32(1), count_up);
  launch(op.InplaceScatter, position, int64_t{0}, order, count_up, int64_t{0});
  launch.copy(make_view(args.position), position.split(0, top_k));
  launch(op.Arange, int32(0), int32(experts + 1), int32(1), numbers.reshaped({experts + 1}));
  launch(op.LtTensor, ids.unsqueezed(0), numbers, smaller);
  launch(op.ReduceSum, smaller, Numbers{{1}}, false, static_cast<int>(kAclInt64), counts);
  launch(op.Cast, counts, static_cast<int>(kAclInt32), offsets);
}

void combine_at_once(Launch& launch, const tm_moe_combine_args& args) {
  constexpr int64_t kDroplessByRow = 2;  // dropPadMode: what MoeInitRoutingV2 gives
  const View position = contiguous_copy(launch, make_view(args.position));
  const View out = make_view(args.out);
  const View sum = contiguous_output(launch, out).reshaped({out.dim(0), out.dim(1)});
  launch(library().op.MoeFinalizeRoutingV2, make_view(args.x), position.reshaped({position.size()}), nullptr, nullptr,
         nullptr, make_view(args.weights), nullptr, kDroplessByRow, sum);
  finish_output(launch, out, sum);
}

// The same of small operators.
void combine_by_sums(Launch& launch, const tm_moe_combine_args& args) {
  const Operators& op = library().op;
  const int64_t tokens = args.out.shape[0];
  const int64_t top_k = args.position.shape[1];
  const int64_t cols = args.x.shape[1];
  const View x = make_view(args.x);
  const View position = launch.take(kAclInt32, {tokens * top_k});
  const View rows = launch.take(x.type, {tokens * top_k, cols});
  const View sum = launch.take(kAclFloat, {tokens, cols});
  const View next = launch.take(kAclFloat, {tokens, cols});
  launch.copy(position.split(0, top_k), make_view(args.position));
  launch(op.IndexSelect, x, int64_t{0}, position, rows);
  const View weights = make_view(args.weights);
  for (int64_t j = 0; j < top_k; ++j) {
    // Rows j, j + top_k, ...: every token's choice j.
    const View row = rows.slice(0, j, tokens, top_k);
    launch(op.Mul, row, weights.slice(1, j, 1), j == 0 ? sum : next);
    if (j > 0) launch(op.Add, sum, next, Number{1}, sum);
  }
  launch.copy(make_view(args.out), sum);
}

}  // namespace

// A stable sort of the scores chooses: equal scores keep the order of their experts, and a NaN still leaves the ids a
// permutation.
void compose(Launch& launch, const tm_moe_route_args& args) {
  require_dtype(args.logits, TM_F32, "logits");
  const Operators& op = library().op;
  const int64_t rows = args.logits.shape[0];
  const int64_t experts = args.logits.shape[1];
  const int64_t top_k = args.top_k;
  if (rows == 0) return;
  require(top_k >= 1 && top_k <= experts, "top_k", "1 to the number of experts");
  const View scores = launch.take(kAclFloat, {rows, experts});
  const View keys = launch.take(kAclFloat, {rows, experts});
  const View sorted = launch.take(kAclFloat, {rows, experts});
  const View order = launch.take(kAclInt64, {rows, experts});
  const View chosen = launch.take(kAclInt64, {rows, top_k});
  const View weights = launch.take(kAclFloat, {rows, top_k});
  const View sum = launch.take(kAclFloat, {rows, 1});
  const View logits = make_view(args.logits);
  if (args.score == TM_ROUTE_SOFTMAX) {
    launch(op.Softmax, logits, int64_t{-1}, scores);
  } else {
    launch(op.Sigmoid, logits, scores);
  }
  const bool biased = given(args.bias);
  if (biased) launch(op.Add, scores, make_view(args.bias).unsqueezed(0), Number{1}, keys);
  launch(op.Sort, biased ? keys : scores, true, int64_t{-1}, true, sorted, order);
  launch.copy(chosen, order.slice(1, 0, top_k));
  launch(op.Gather, scores, int64_t{1}, chosen, weights);
  if (args.renormalize) {
    launch(op.ReduceSum, weights, Numbers{{1}}, true, static_cast<int>(kAclFloat), sum);
    launch(op.Div, weights, sum, weights);
  }
  if (args.scaling != 1) launch(op.Muls, weights, Number{args.scaling}, weights);
  launch(op.Cast, chosen, static_cast<int>(kAclInt32), make_view(args.expert_ids));
  launch.copy(make_view(args.weights), weights);
}

void compose(Launch& launch, const tm_moe_permute_args& args) {
  if (args.x.shape[0] == 0) return launch(library().op.InplaceZero, make_view(args.expert_offsets));
  if (library().op.MoeInitRoutingV2.available()) return permute_at_once(launch, args);
  permute_by_sort(launch, args);
}

void compose(Launch& launch, const tm_moe_combine_args& args) {
  if (args.out.shape[0] == 0) return;
  // Elsewhere float16 rows want float16 weights, which would round the router's.
  const bool takes_rows = args.x.dtype != TM_F16 || launch.context().profile().finalize_f16;
  if (takes_rows && args.x.dtype == args.out.dtype && library().op.MoeFinalizeRoutingV2.available()) {
    return combine_at_once(launch, args);
  }
  combine_by_sums(launch, args);
}

}  // namespace turbomind::ascend
