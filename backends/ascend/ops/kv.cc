// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <vector>

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

// Symmetric codes of each head, and what they are to be multiplied with.
struct CodedRows {
  View codes;   // i8 [rows, heads, dim]
  View scales;  // f32 [rows, heads, 1]
};

CodedRows coded_rows(Launch& launch, const View& rows) {
  const Operators& op = library().op;
  constexpr double kLargestCode = 127;
  const View wide = launch.take(kAclFloat, {rows.dim(0), rows.dim(1), rows.dim(2)});
  const View magnitudes = launch.take(kAclFloat, {rows.dim(0), rows.dim(1), rows.dim(2)});
  const View largest = launch.take(kAclFloat, {rows.dim(0), rows.dim(1), 1});
  const CodedRows coded{launch.take(kAclInt8, {rows.dim(0), rows.dim(1), rows.dim(2)}),
                        launch.take(kAclFloat, {rows.dim(0), rows.dim(1), 1})};
  launch.copy(wide, rows);
  launch(op.Muls, wide, Number{-1}, magnitudes);
  launch(op.Maximum, magnitudes, wide, magnitudes);
  launch(op.Amax, magnitudes, Numbers{{2}}, true, largest);
  // A head of zeros has codes of zero, whatever its scale.
  launch(op.Clamp, largest, Number{1e-30}, Number{std::numeric_limits<float>::max()}, largest);
  launch(op.Muls, wide, Number{kLargestCode}, wide);
  launch(op.Div, wide, largest, wide);
  launch(op.Round, wide, wide);
  launch(op.Cast, wide, static_cast<int>(kAclInt8), coded.codes);
  launch(op.Muls, largest, Number{1 / kLargestCode}, coded.scales);
  return coded;
}

void write_coded(Launch& launch, const View& cache, const View& scales, const View& slots, const View& rows) {
  const CodedRows coded = coded_rows(launch, rows);
  scatter_rows(launch, cache, slots, coded.codes);
  scatter_rows(launch, scales, slots, coded.scales);
}

// Everything that a block consists of, each [spare + blocks, block_size, heads, width].
std::vector<View> parts_of(const KvLayout& layout, const tm_kv_pool& pool) {
  std::vector<View> parts{layout.keys(pool), layout.values(pool)};
  if (layout.has_scales()) parts.insert(parts.end(), {layout.key_scales(pool), layout.value_scales(pool)});
  return parts;
}

// visit(memory of the block, byte in the exchange form, bytes) for each run of bytes that both forms have together:
// keys of all ids, their values, then for each id the scales of its keys and of its values.
template <class Visit>
void for_each_exchanged(const KvLayout& layout, const tm_kv_pool& pool, const int32_t* ids, int64_t count,
                        Visit&& visit) {
  size_t at = 0;
  const auto give = [&](const View& cache, int64_t id, int64_t dim) {
    require(id >= 0 && id < pool.num_blocks, "block_ids", "blocks of the pool");
    const View block = cache.slice(0, kSpareBlocks + id, 1);
    const bool whole = dim == block.dim(3);  // else heads are padded, and each goes by itself
    const int64_t runs = whole ? 1 : block.dim(1) * block.dim(2);
    const int64_t bytes = (whole ? block.size() : dim) * element_bytes(block.type);
    const int64_t step = block.dim(3) * element_bytes(block.type);
    for (int64_t i = 0; i < runs; ++i, at += static_cast<size_t>(bytes)) {
      visit(static_cast<std::byte*>(block.data) + i * step, at, static_cast<size_t>(bytes));
    }
  };
  for (int64_t i = 0; i < count; ++i) give(layout.keys(pool), ids[i], layout.dim_k);
  for (int64_t i = 0; i < count; ++i) give(layout.values(pool), ids[i], layout.dim_v);
  for (int64_t i = 0; layout.has_scales() && i < count; ++i) {
    give(layout.key_scales(pool), ids[i], 1);
    give(layout.value_scales(pool), ids[i], 1);
  }
}

}  // namespace

void AscendOps::kv_export(Stream& stream, const tm_kv_pool& pool, const int32_t* ids, int64_t count, void* dst) {
  const KvLayout layout = make_kv_layout(stream.context().profile(), pool.spec);
  const tm_copy_kind kind = stream.context().is_pinned(dst) ? TM_DEVICE_TO_HOST : TM_DEVICE_TO_DEVICE;
  for_each_exchanged(layout, pool, ids, count, [&](const std::byte* block, size_t at, size_t bytes) {
    stream.copy_async(static_cast<std::byte*>(dst) + at, block, bytes, kind);
  });
}

void AscendOps::kv_import(Stream& stream, const tm_kv_pool& pool, const int32_t* ids, int64_t count, const void* src) {
  const KvLayout layout = make_kv_layout(stream.context().profile(), pool.spec);
  const tm_copy_kind kind = stream.context().is_pinned(src) ? TM_HOST_TO_DEVICE : TM_DEVICE_TO_DEVICE;
  for_each_exchanged(layout, pool, ids, count, [&](std::byte* block, size_t at, size_t bytes) {
    stream.copy_async(block, static_cast<const std::byte*>(src) + at, bytes, kind);
  });
}

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
  if (layout.has_scales()) {
    const View slots = plan.slots().slice(0, 0, rows);
    write_coded(launch, layout.keys(args.kv), layout.key_scales(args.kv), slots, make_view(args.k).slice(0, 0, rows));
    write_coded(launch, layout.values(args.kv), layout.value_scales(args.kv), slots,
                make_view(args.v).slice(0, 0, rows));
    return;
  }
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
  for (const View& region : parts_of(layout, args.kv)) {
    const View blocks = region.slice(0, kSpareBlocks, args.kv.num_blocks);
    const auto bytes = static_cast<size_t>(region.stride[0] * element_bytes(region.type));
    for (int64_t i = 0; i < args.num_pairs; ++i) {
      launch.stream().copy_async(blocks.slice(0, args.pairs[2 * i + 1], 1).data,
                                 blocks.slice(0, args.pairs[2 * i], 1).data, bytes, TM_DEVICE_TO_DEVICE);
    }
  }
}

}  // namespace turbomind::ascend
