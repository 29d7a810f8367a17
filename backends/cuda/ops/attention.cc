// SPDX-License-Identifier: Apache-2.0
//
// Chooses the kernels of an attention call. Sequences with few rows (decode) are split over their contexts where that
// fills the device; longer ones (prefill) are cut into tiles of rows.
#include "kernels/attention.h"

#include "ops.h"
#include "ops/tensor_args.h"
#include "ops/workspace.h"

namespace turbomind::cuda {
namespace {

AttentionRows make_rows(const tm_tensor& q, const tm_tensor& out, int64_t kv_heads, float scale) {
  require_heads(q, q.dtype, "q");
  require_heads(out, q.dtype, "out");
  require(kv_heads > 0 && q.shape[1] % kv_heads == 0, "q", "a multiple of num_kv_heads heads");
  require(q.shape[0] == out.shape[0] && q.shape[1] == out.shape[1], "out", "a row and head for each of q's");
  require(q.shape[2] <= kMaxHeadDim && out.shape[2] <= kMaxHeadDim, "q",
          "heads of at most " + std::to_string(kMaxHeadDim) + " elements");
  AttentionRows rows{};
  rows.q = q.data;
  rows.out = out.data;
  rows.q_stride = q.stride[0];
  rows.out_stride = out.stride[0];
  rows.rows = q.shape[0];
  rows.q_heads = static_cast<int32_t>(q.shape[1]);
  rows.kv_heads = static_cast<int32_t>(kv_heads);
  rows.dim_k = static_cast<int32_t>(q.shape[2]);
  rows.dim_v = static_cast<int32_t>(out.shape[2]);
  rows.scale = scale;
  rows.dtype = q.dtype;
  return rows;
}

Partials take_partials(WorkspaceArena& arena, const Plan& plan, int64_t q_heads, int64_t dim_v) {
  const int64_t heads = plan.schedule().max_partial_rows() * q_heads;
  Partials partials{};
  partials.values = arena.take<float>(heads * dim_v);
  partials.maxima = arena.take<float>(heads);
  partials.sums = arena.take<float>(heads);
  return partials;
}

AttentionRows paged_rows(const tm_attention_args& args, const Plan& plan) {
  AttentionRows rows = make_rows(args.q, args.out, args.kv.spec.num_kv_heads, args.scale);
  require(rows.dim_k == args.kv.spec.head_dim_k, "q", "head_dim_k elements per head");
  require(rows.dim_v == args.kv.spec.head_dim_v, "out", "head_dim_v elements per head");
  require(rows.rows >= plan.num_tokens() && rows.rows <= plan.limits().max_tokens, "q", "a row for each of the plan's");
  require_vector(args.sinks, TM_F32, "sinks");
  rows.window = args.window;
  rows.softcap = args.softcap;
  rows.sinks = static_cast<const float*>(args.sinks.data);
  return rows;
}

// Sequences of few rows, split over their contexts.
void attend_short(Stream& stream, const TileCall& step, const PagedKv& kv, const Plan& plan, const Partials& partials) {
  TileCall call = step;
  call.items = plan.short_items(stream);
  call.positions = plan.max_short_rows(stream);
  call.zero_padding = true;
  const int group = call.rows.q_heads / call.rows.kv_heads;
  call.splits_keys = !stream.context().deterministic() && !plan.has_spans() && call.positions * group <= kDecodeRows;
  if (call.splits_keys && stream_takes(call.rows, kv, stream.context().architecture())) {
    launch_attention_stream(stream.handle(), call, kv, partials);
  } else {
    launch_attention_tiles(stream.handle(), call, kv, partials);
  }
  const MergeItems merges = plan.merges(stream);
  if (merges.capacity > 0) launch_attention_merge(stream.handle(), call.rows, merges, partials);
}

// Longer sequences. The warpgroups' sums depend on a row's place in its tile, which deterministic contexts rule out;
// like the kernels of decode they know no spans.
void attend_long(Stream& stream, const TileCall& step, const PagedKv& kv, const Plan& plan) {
  TileCall call = step;
  const bool warpgroups = !stream.context().deterministic() && !plan.has_spans() &&
                          warpgroups_take(call.rows, kv.dtype, stream.context().architecture());
  const bool shares_keys = call.rows.q_heads >= 3 * call.rows.kv_heads;
  call.positions = warpgroups    ? kTilePositions.back() / warpgroup_heads(call.rows)
                   : shares_keys ? kTileRows / 4
                                 : kTileRows;
  call.items = plan.tiles(stream, call.positions);
  if (call.items.capacity == 0) return;
  if (warpgroups) return launch_attention_warpgroups(stream.handle(), call, kv);
  launch_attention_tiles(stream.handle(), call, kv, Partials{});
}

}  // namespace

size_t CudaOps::attention_workspace(Context&, const tm_attention_args& args) {
  WorkspaceArena arena;
  take_partials(arena, plan_arg(args.plan), args.q.shape[1], args.kv.spec.head_dim_v);
  return arena.used();
}

void CudaOps::attention(Stream& stream, const tm_attention_args& args, const tm_workspace& workspace) {
  const Plan& plan = paged_plan_arg(args.plan, args.kv.spec);
  const AttentionRows rows = paged_rows(args, plan);
  if (rows.rows == 0) return;
  if (plan.has_spans()) stream.note_spans();
  const PagedKv kv{static_cast<const std::byte*>(args.kv.data), make_kv_layout(args.kv.spec), args.kv.spec.dtype};
  if (!tiles_take(rows, kv.dtype)) return launch_attention_plain(stream.handle(), rows, kv, plan.view());
  WorkspaceArena arena(workspace);
  const TileCall call{.rows = rows, .step = plan.view(), .num_sms = stream.context().num_sms()};
  attend_short(stream, call, kv, plan, take_partials(arena, plan, rows.q_heads, rows.dim_v));
  attend_long(stream, call, kv, plan);
}

void CudaOps::attention_dense(Stream& stream, const tm_attention_dense_args& args, const tm_workspace&) {
  const Plan& plan = plan_arg(args.plan);
  require_heads(args.k, args.q.dtype, "k");
  require_heads(args.v, args.q.dtype, "v");
  const AttentionRows rows = make_rows(args.q, args.out, args.k.shape[1], args.scale);
  require(rows.rows >= plan.num_tokens() && rows.rows <= plan.limits().max_tokens, "q", "a row for each of the plan's");
  if (rows.rows == 0) return;
  const DenseKv kv{args.k.data, args.v.data, args.k.stride[0], args.v.stride[0]};
  if (!tiles_take(rows, kv)) return launch_attention_plain(stream.handle(), rows, kv, plan.view());
  const TileCall call{.rows = rows,
                      .step = plan.view(),
                      .items = plan.tiles(stream, kTileRows),
                      .positions = kTileRows,
                      .num_sms = stream.context().num_sms(),
                      .zero_padding = true};
  launch_attention_tiles(stream.handle(), call, kv);
}

}  // namespace turbomind::cuda
