// SPDX-License-Identifier: Apache-2.0
//
// Attention by FusedInferAttentionScore: all sequences of a step in one call, rows back to back (layout TND), keys and
// values in paged blocks. It reads lengths on the host, so a captured call is a task group that each replay updates.
#include <algorithm>
#include <vector>

#include "constants.h"
#include "kv_layout.h"
#include "ops.h"
#include "ops/attention_rows.h"

namespace turbomind::ascend {
namespace {

constexpr int64_t kNoMask = 0;  // sparseMode
constexpr int64_t kCausal = 3;  // the last row sees everything
constexpr int64_t kBand = 4;    // causal and at most preTokens back
constexpr int64_t kUnlimited = 2147483647;
constexpr int64_t kHighPrecision = 0;    // innerPrecise
constexpr int64_t kMaxCacheRow = 65535;  // elements of all heads of one place

// One call of the operator. Everything but the lengths stays the same from replay to replay.
struct FusedCall {
  View q;  // [rows, heads, dim]
  View keys;
  View values;
  View block_table;  // data NULL: keys and values are the sequences' own rows
  View out;
  View lse;
  int64_t kv_heads;
  int64_t block_size;  // 0: not paged
  float scale;
  int64_t sparse_mode;
  int64_t window;
};

void issue(Launch& launch, const FusedCall& call, const Numbers& q_ends, const Numbers& kv_lengths) {
  constexpr auto none = nullptr;
  constexpr int64_t kZero = 0;
  char layout[] = "TND";
  char* const layout_argument = layout;
  const int64_t before = call.window > 0 ? call.window - 1 : kUnlimited;
  const int64_t after = call.window > 0 ? 0 : kUnlimited;
  const auto run = [&](const auto& mask, const auto& table) {
    launch(library().op.FusedInferAttentionScoreV3, call.q, Views{{call.keys}}, Views{{call.values}}, none, mask,
           q_ends, kv_lengths, none, none, none, none, none, none, none, table, none, none, none, none, none, none,
           none, none, none, none, none, none, call.q.dim(1), static_cast<double>(call.scale), before, after,
           layout_argument, call.kv_heads, call.sparse_mode, kHighPrecision, call.block_size, kZero, false, kZero,
           kZero, call.out, call.lse);
  };
  if (!call.block_table.data) return run(none, none);
  run(launch.context().constants().causal_mask(), call.block_table);
}

// Lengths as the operator wants them: rows cumulative; a captured step's padding rows go to sequences of their own,
// which look at some block and whose results are zeroed.
struct Lengths {
  Numbers q_ends;
  Numbers kv;
};

Lengths paged_lengths(const Plan& plan, int64_t rows, int64_t sequences) {
  Lengths lengths{{plan.q_ends()}, {plan.contexts()}};
  int64_t padding = rows - plan.num_tokens();
  while (static_cast<int64_t>(lengths.kv.values.size()) < sequences) {
    const int64_t left = sequences - static_cast<int64_t>(lengths.kv.values.size());
    const int64_t own = left == 1 ? padding : std::min<int64_t>(padding, 1);
    padding -= own;
    lengths.q_ends.values.push_back((lengths.q_ends.values.empty() ? 0 : lengths.q_ends.values.back()) + own);
    lengths.kv.values.push_back(std::max<int64_t>(own, 1));
  }
  return lengths;
}

// Heads padded with zeros to the operator's size, contiguous.
View padded_heads(Launch& launch, const View& rows, int64_t width) {
  if (!launch.counting() && rows.dim(2) == width) return contiguous_copy(launch, rows);
  const View wide = launch.take(rows.type, {rows.dim(0), rows.dim(1), width});
  if (width != rows.dim(2)) launch(library().op.InplaceZero, wide);
  launch.copy(wide.slice(2, 0, rows.dim(2)), rows);
  return wide;
}

bool takes_dtype(const Profile& profile, AclType type) {
  return profile.fused_attention && (type == kAclBf16 || (type == kAclFloat16 && profile.fused_attention_f16)) &&
         library().op.FusedInferAttentionScoreV3.available();
}

bool is_fused(const Launch& launch, const tm_attention_args& args, const KvLayout& layout, const Plan& plan) {
  const Profile& profile = launch.context().profile();
  const AclType type = acl_type(args.q.dtype);
  const bool padded = layout.width_k == layout.width_v &&
                      padded_head_dim(profile, static_cast<int32_t>(layout.width_k)) == layout.width_k;
  if (!takes_dtype(profile, type) || type != layout.type || !padded || plan.has_spans() || args.softcap > 0 ||
      given(args.sinks) || layout.heads * layout.width_k > kMaxCacheRow) {
    return false;
  }
  // The operator's document says that sequences of one row ignore the sparse mode, which is what holds the window.
  if (args.window == 0) return true;
  // Neither a capture nor a row that must not notice the others may choose by the lengths of the step.
  if (launch.stream().capturing() || launch.context().deterministic()) return plan.max_context() <= args.window;
  return !plan.exceeds(args.window) || !plan.has_single_rows();
}

// The step as one call; `rows` of q take part.
void attend_fused(Launch& launch, const tm_attention_args& args, const KvLayout& layout, const Plan& plan,
                  int64_t rows) {
  const bool capturing = !launch.counting() && launch.stream().capturing();
  const View q = padded_heads(launch, make_view(args.q).slice(0, 0, rows), layout.width_k);
  const View result = launch.take(q.type, {rows, q.dim(1), layout.width_v});
  const View lse = launch.take(kAclFloat, {1});
  if (launch.counting()) return;
  // A decode step has as many rows as sequences; any other gets one sequence more for its padding.
  const int64_t sequences = !capturing ? plan.num_seqs() : plan.padded_seqs() == rows ? rows : plan.padded_seqs() + 1;
  const View table = plan.block_table();
  const auto real_blocks = [&](const View& cache) {
    return cache.slice(0, kSpareBlocks, args.kv.num_blocks)
        .reshaped({args.kv.num_blocks, kBlockSize, cache.dim(2) * cache.dim(3)});
  };
  const bool windowed = args.window > 0 && (capturing ? plan.max_context() > args.window : plan.exceeds(args.window));
  const FusedCall call{.q = q,
                       .keys = real_blocks(layout.keys(args.kv)),
                       .values = real_blocks(layout.values(args.kv)),
                       .block_table = table.slice(0, 0, sequences),
                       .out = result,
                       .lse = lse,
                       .kv_heads = layout.heads,
                       .block_size = kBlockSize,
                       .scale = args.scale,
                       .sparse_mode = windowed ? kBand : kCausal,
                       .window = windowed ? args.window : 0};
  launch.stream().issue_with_lengths([call, &plan, rows, sequences](Stream& stream) {
    const Lengths lengths = paged_lengths(plan, rows, sequences);
    Launch again(stream, tm_workspace{});
    issue(again, call, lengths.q_ends, lengths.kv);
  });
  launch.copy(make_view(args.out).slice(0, 0, rows), result.slice(2, 0, layout.dim_v));
}

// Padding rows are zeros, whatever was computed there.
void zero_padding(Launch& launch, const tm_attention_args& args, const Plan& plan) {
  const View out = make_view(args.out);
  if (launch.counting() || launch.stream().capturing()) {
    launch(library().op.InplaceMaskedFillScalar, out,
           plan.padding().slice(0, 0, out.dim(0)).unsqueezed(1).unsqueezed(2), Number{0});
    return;
  }
  const int64_t padding = out.dim(0) - plan.num_tokens();
  if (padding > 0) launch(library().op.InplaceZero, out.slice(0, plan.num_tokens(), padding));
}

void check_arguments(const tm_attention_args& args, const KvLayout& layout, const Plan& plan) {
  require_float(args.q, "q");
  require_rank(args.q, 3, "q");
  require_rank(args.out, 3, "out");
  require(args.q.shape[2] == layout.dim_k, "q", "head_dim_k elements per head");
  require(args.q.shape[1] % layout.heads == 0, "q", "a multiple of the pool's heads");
  require(args.out.shape[2] == layout.dim_v, "out", "head_dim_v elements per head");
  require(args.q.shape[0] >= plan.num_tokens() && args.q.shape[0] <= plan.limits().max_tokens, "q",
          "a row for each of the plan's");
}

}  // namespace

void compose(Launch& launch, const tm_attention_args& args) {
  const KvLayout layout = make_kv_layout(launch.context().profile(), args.kv.spec);
  if (launch.counting()) {
    const Plan& plan = plan_arg(args.plan);
    attend_fused(launch, args, layout, plan, args.q.shape[0]);
    return attention_by_rows(launch, args, plan);
  }
  const Plan& plan = paged_plan_arg(args.plan, args.kv.spec);
  check_arguments(args, layout, plan);
  if (args.q.shape[0] == 0) return;
  const int64_t rows = launch.stream().capturing() ? args.q.shape[0] : plan.num_tokens();
  if (rows > 0) {
    is_fused(launch, args, layout, plan) ? attend_fused(launch, args, layout, plan, rows)
                                         : attention_by_rows(launch, args, plan);
  }
  zero_padding(launch, args, plan);
}

void compose(Launch& launch, const tm_attention_dense_args& args) {
  const Plan& plan = plan_arg(args.plan);
  require_float(args.q, "q");
  const int64_t rows = args.q.shape[0];
  if (rows == 0) return;
  const Profile& profile = launch.context().profile();
  const View q = make_view(args.q);
  const int32_t width = padded_head_dim(profile, static_cast<int32_t>(std::max(args.q.shape[2], args.v.shape[2])));
  const bool fused = takes_dtype(profile, q.type) && width > 0;
  if (!fused || launch.counting()) attention_dense_by_rows(launch, args, plan);
  if (!fused) return;
  const View heads = padded_heads(launch, q, width);
  const View keys = padded_heads(launch, make_view(args.k), width);
  const View values = padded_heads(launch, make_view(args.v), width);
  const View result = launch.take(q.type, {rows, q.dim(1), width});
  const View lse = launch.take(kAclFloat, {1});
  if (launch.counting()) return;
  const FusedCall call{.q = heads,
                       .keys = keys,
                       .values = values,
                       .block_table = View{},
                       .out = result,
                       .lse = lse,
                       .kv_heads = keys.dim(1),
                       .block_size = 0,
                       .scale = args.scale,
                       .sparse_mode = kNoMask,
                       .window = 0};
  const int64_t sequences = launch.stream().capturing() ? plan.padded_seqs() + 1 : plan.num_seqs();
  launch.stream().issue_with_lengths([call, &plan, rows, sequences](Stream& stream) {
    Numbers ends{plan.q_ends()};
    // Rows past the sequences' own form one more.
    while (static_cast<int64_t>(ends.values.size()) < sequences) ends.values.push_back(rows);
    ends.values.back() = rows;
    Launch again(stream, tm_workspace{});
    issue(again, call, ends, ends);
  });
  launch.copy(make_view(args.out), result.slice(2, 0, args.v.shape[2]));
}

}  // namespace turbomind::ascend
