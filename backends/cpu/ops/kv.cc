// SPDX-License-Identifier: Apache-2.0
#include "ops/kv.h"

#include <cstring>

#include "ops.h"
#include "ops/plan_runs.h"
#include "ops/row_ranges.h"

namespace turbomind::cpu {
namespace {

KvStoreFn kernel_for(const KvKernels& kernels, tm_dtype dtype) {
  switch (dtype) {
    case TM_F32:
      return kernels.store_f32;
    case TM_F16:
      return kernels.store_f16;
    case TM_BF16:
      return kernels.store_bf16;
    default:
      return kernels.store_int8;
  }
}

const Plan& plan_arg(const tm_plan* handle, const tm_kv_spec& spec) {
  require(handle != nullptr, "plan", "a plan");
  const Plan& plan = *abi::as<const Plan>(handle);
  require(plan.num_seqs() == 0 || plan.has_blocks(), "plan", "context_lens and block_table");
  require(plan.num_seqs() == 0 || plan.limits().block_size == spec.block_size, "plan", "the pool's block_size");
  return plan;
}

// One head of one block, between its place in the pool and the canonical tensors.
struct BlockHead {
  std::byte* stored;      // in the pool
  std::byte* keys;        // canonical, of the head's first token; tokens key_stride bytes apart
  std::byte* values;      // likewise
  std::byte* key_scales;  // tokens scale_stride bytes apart; TM_I8 only
  std::byte* value_scales;
  int64_t key_stride;
  int64_t value_stride;
  int64_t scale_stride;
};

// The canonical form: keys of all blocks [ids, block_size, heads, head_dim_k], values likewise, scales [ids, 2,
// block_size, heads].
class Canonical {
 public:
  Canonical(const tm_kv_pool& pool, int64_t num_ids, std::byte* data)
      : pool_(pool),
        layout_(pool.spec),
        keys_(data),
        values_(keys_ + num_ids * tokens() * pool.spec.head_dim_k * size()),
        scales_(values_ + num_ids * tokens() * pool.spec.head_dim_v * size()) {}

  BlockHead head(int64_t index, int64_t block, int64_t head) const {
    const int64_t token = index * tokens() + head;
    BlockHead out{};
    out.stored = layout_.head(pool_, block, head);
    out.keys = keys_ + token * pool_.spec.head_dim_k * size();
    out.values = values_ + token * pool_.spec.head_dim_v * size();
    out.key_stride = layout_.num_heads * pool_.spec.head_dim_k * size();
    out.value_stride = layout_.num_heads * pool_.spec.head_dim_v * size();
    if (pool_.spec.dtype == TM_I8) {
      out.key_scales = scales_ + (2 * index * tokens() + head) * kScaleBytes;
      out.value_scales = out.key_scales + tokens() * kScaleBytes;
      out.scale_stride = layout_.num_heads * kScaleBytes;
    }
    return out;
  }

  const tm_kv_spec& spec() const { return pool_.spec; }
  const KvLayout& layout() const { return layout_; }
  bool holds(int64_t block) const { return block >= 0 && block < pool_.num_blocks; }

 private:
  static constexpr int64_t kScaleBytes = sizeof(float);

  int64_t size() const { return layout_.element_size; }
  // Of one block, over all heads.
  int64_t tokens() const { return layout_.block_size * layout_.num_heads; }

  tm_kv_pool pool_;
  KvLayout layout_;
  std::byte* keys_;
  std::byte* values_;
  std::byte* scales_;
};

// Calls copy(pool bytes, canonical bytes, number of bytes) for every contiguous piece of the head.
template <class Copy>
void visit_head(const Canonical& canonical, const BlockHead& head, Copy&& copy) {
  const KvLayout& layout = canonical.layout();
  const int64_t size = layout.element_size;
  for (int64_t token = 0; token < layout.block_size; ++token) {
    for (int64_t d = 0; d < canonical.spec().head_dim_k; ++d) {
      copy(head.stored + (d * layout.block_size + token) * size, head.keys + token * head.key_stride + d * size, size);
    }
    const int64_t row = canonical.spec().head_dim_v * size;
    copy(head.stored + layout.value_offset + token * row, head.values + token * head.value_stride, row);
    if (!head.key_scales) continue;
    std::byte* scales = head.stored + layout.scale_offset;
    const int64_t scale_bytes = sizeof(float);
    copy(scales + token * scale_bytes, head.key_scales + token * head.scale_stride, scale_bytes);
    copy(scales + (layout.block_size + token) * scale_bytes, head.value_scales + token * head.scale_stride,
         scale_bytes);
  }
}

template <class Copy>
void visit_blocks(Stream& stream, const Canonical& canonical, const int32_t* block_ids, int64_t num_ids, Copy&& copy) {
  for (int64_t i = 0; i < num_ids; ++i) require(canonical.holds(block_ids[i]), "block_ids", "block ids of the pool");
  const int64_t heads = canonical.layout().num_heads;
  for_row_ranges(stream.pool(), num_ids * heads, canonical.layout().head_bytes, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      visit_head(canonical, canonical.head(i / heads, block_ids[i / heads], i % heads), copy);
    }
  });
}

}  // namespace

KvWriter::KvWriter(const Stream& stream, const tm_kv_write_args& args)
    : k_(heads_arg<const float>(args.k, "k")),
      v_(heads_arg<const float>(args.v, "v")),
      pool_(args.kv),
      layout_(args.kv.spec),
      plan_(plan_arg(args.plan, args.kv.spec)),
      store_(kernel_for(stream.kernels().kv, args.kv.spec.dtype)) {
  require(k_.heads == layout_.num_heads && k_.dim == args.kv.spec.head_dim_k, "k", "the pool's heads");
  require(v_.heads == layout_.num_heads && v_.dim == args.kv.spec.head_dim_v, "v", "the pool's heads");
  require(k_.rows >= plan_.num_tokens() && v_.rows >= plan_.num_tokens(), "k", "a row for each of the plan's");
}

void KvWriter::store(int64_t begin, int64_t end) const {
  for_block_runs(plan_, layout_.block_size, begin, end, [&](const BlockRun& run) {
    for (int64_t head = 0; head < layout_.num_heads; ++head) {
      std::byte* stored = layout_.head(pool_, run.block, head);
      KvStore task{};
      task.keys = k_.head(run.row, head);
      task.values = v_.head(run.row, head);
      task.key_stride = k_.stride;
      task.value_stride = v_.stride;
      task.count = static_cast<int>(run.count);
      task.dim_k = static_cast<int>(k_.dim);
      task.dim_v = static_cast<int>(v_.dim);
      task.block_size = static_cast<int>(layout_.block_size);
      task.stored_keys = stored + run.place * layout_.element_size;
      task.stored_values = stored + layout_.value_offset + run.place * v_.dim * layout_.element_size;
      task.key_scales = reinterpret_cast<float*>(stored + layout_.scale_offset) + run.place;
      task.value_scales = task.key_scales + layout_.block_size;
      store_(task);
    }
  });
}

void CpuOps::kv_write(Stream& stream, const tm_kv_write_args& args, const tm_workspace&) {
  const KvWriter writer(stream, args);
  for_row_ranges(stream.pool(), writer.num_tokens(), writer.row_cost(),
                 [&](int64_t begin, int64_t end) { writer.store(begin, end); });
}

void CpuOps::kv_copy_blocks(Stream&, const tm_kv_copy_blocks_args& args, const tm_workspace&) {
  const KvLayout layout(args.kv.spec);
  for (int64_t i = 0; i < 2 * args.num_pairs; ++i) {
    require(args.pairs[i] >= 0 && args.pairs[i] < args.kv.num_blocks, "pairs", "block ids of the pool");
  }
  // In order: a pair may read what an earlier one wrote.
  for (int64_t i = 0; i < args.num_pairs; ++i) {
    std::memmove(layout.head(args.kv, args.pairs[2 * i + 1], 0), layout.head(args.kv, args.pairs[2 * i], 0),
                 layout.block_bytes);
  }
}

void CpuOps::kv_export(Stream& stream, const tm_kv_pool& pool, const int32_t* block_ids, int64_t num_ids, void* dst) {
  const Canonical canonical(pool, num_ids, static_cast<std::byte*>(dst));
  visit_blocks(stream, canonical, block_ids, num_ids,
               [](std::byte* stored, std::byte* out, int64_t bytes) { std::memcpy(out, stored, bytes); });
}

void CpuOps::kv_import(Stream& stream, const tm_kv_pool& pool, const int32_t* block_ids, int64_t num_ids,
                       const void* src) {
  // The visitor is shared with export, so it walks mutable bytes; src is only read.
  const Canonical canonical(pool, num_ids, static_cast<std::byte*>(const_cast<void*>(src)));
  visit_blocks(stream, canonical, block_ids, num_ids,
               [](std::byte* stored, std::byte* in, int64_t bytes) { std::memcpy(stored, in, bytes); });
}

}  // namespace turbomind::cpu
