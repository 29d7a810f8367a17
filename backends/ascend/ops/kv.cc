// SPDX-License-Identifier: Apache-2.0
#include "kv_layout.h"
#include "ops.h"

namespace turbomind::ascend {
namespace {

// Rows as the cache holds them: its dtype, heads padded with zeros, contiguous.
View cache_rows(Launch& launch, const View& rows, AclType type, int64_t width) {
  const bool fits = !launch.counting() && rows.type == type && rows.dim(2) == width;
  if (fits) return contiguous_copy(launch, rows);
  const View wide = launch.take(type, {rows.dim(0), rows.dim(1), width});
  if (width != rows.dim(2)) launch(library().op.InplaceZero, wide);
  launch.copy(wide.slice(2, 0, rows.dim(2)), rows);
  return wide;
}

// One row per place: what every dtype and head size can do.
void scatter_rows(Launch& launch, const View& cache, const View& slots, const View& rows) {
  const int64_t width = cache.dim(2) * cache.dim(3);
  launch(library().op.ScatterNdUpdate, cache.reshaped({cache.dim(0) * cache.dim(1), width}), slots.unsqueezed(1),
         rows.reshaped({rows.dim(0), width}));
}

}  // namespace

void compose(Launch& launch, const tm_kv_write_args& args) {
  const Operators& op = library().op;
  const KvLayout layout = make_kv_layout(launch.context().profile(), args.kv.spec);
  require_rank(args.k, 3, "k");
  require_rank(args.v, 3, "v");
  require(args.k.shape[1] == layout.heads && args.k.shape[2] == layout.dim_k, "k", "the pool's heads");
  require(args.v.shape[1] == layout.heads && args.v.shape[2] == layout.dim_v, "v", "the pool's heads");
  const Plan& plan = paged_plan_arg(args.plan, args.kv.spec);
  // In a capture padding rows are written too, to spare places; else there is no need.
  const bool all = launch.counting() || launch.stream().capturing();
  const int64_t rows = all ? args.k.shape[0] : std::min(args.k.shape[0], plan.num_tokens());
  if (rows == 0) return;
  const View k = cache_rows(launch, make_view(args.k).slice(0, 0, rows), layout.type, layout.width_k);
  const View v = cache_rows(launch, make_view(args.v).slice(0, 0, rows), layout.type, layout.width_v);
  const View slots = plan.slots().slice(0, 0, rows);
  const View keys = layout.keys(args.kv);
  const View values = layout.values(args.kv);
  if (is_16_bit(layout.type) && layout.width_k == layout.width_v && op.ScatterPaKvCache.available()) {
    char cache_mode[] = "Norm";
    char scatter_mode[] = "None";
    char* const cache_mode_argument = cache_mode;
    char* const scatter_mode_argument = scatter_mode;
    return launch(op.ScatterPaKvCache, k, keys, slots, v, values, nullptr, nullptr, nullptr, cache_mode_argument,
                  scatter_mode_argument, nullptr, nullptr);
  }
  scatter_rows(launch, keys, slots, k);
  scatter_rows(launch, values, slots, v);
}

void compose(Launch& launch, const tm_kv_copy_blocks_args& args) {
  if (launch.counting()) return;
  const KvLayout layout = make_kv_layout(launch.context().profile(), args.kv.spec);
  for (const View& region : {layout.keys(args.kv), layout.values(args.kv)}) {
    const View blocks = region.slice(0, kSpareBlocks, args.kv.num_blocks);
    const auto bytes = static_cast<size_t>(region.stride[0] * element_bytes(region.type));
    for (int64_t i = 0; i < args.num_pairs; ++i) {
      launch.stream().copy_async(blocks.slice(0, args.pairs[2 * i + 1], 1).data,
                                 blocks.slice(0, args.pairs[2 * i], 1).data, bytes, TM_DEVICE_TO_DEVICE);
    }
  }
}

}  // namespace turbomind::ascend
