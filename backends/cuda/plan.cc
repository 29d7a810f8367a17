// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "cuda_check.h"
#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cuda {
namespace {

constexpr size_t kNumStaging = 4;
constexpr size_t kAlignment = 256;  // bytes, of every array in device memory
constexpr int32_t kDefaultKvHeads = 8;

ScheduleLimits schedule_limits(const Context& context, const tm_plan_limits& limits) {
  abi::check_plan_limits(limits);
  int32_t kv_heads = 0;
  int32_t group = 0;  // most query heads of a kv head
  for (int32_t i = 0; i < limits.num_shapes; ++i) {
    const int32_t heads = limits.shapes[i].kv.num_kv_heads;
    kv_heads = kv_heads == 0 ? heads : std::min(kv_heads, heads);
    if (heads > 0) group = std::max(group, limits.shapes[i].num_heads / heads);
  }
  if (kv_heads <= 0) kv_heads = kDefaultKvHeads;
  const int32_t shared_seqs = group > 0 ? std::max(1, kDecodeRows / group) : 1;
  return {limits.max_tokens, limits.max_seqs, kv_heads, context.num_sms(), shared_seqs, context.deterministic()};
}

// Cuts one allocation into arrays; with no data it counts.
class Cutter {
 public:
  explicit Cutter(void* data) : data_(static_cast<std::byte*>(data)) {}

  template <class T>
  T* take(int64_t count) {
    const size_t offset = used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return data_ ? reinterpret_cast<T*>(data_ + offset) : nullptr;
  }
  size_t used() const { return used_; }

 private:
  std::byte* data_;
  size_t used_ = 0;
};

}  // namespace

// Packs arrays one after the other into staging memory and notes where each one goes.
class Plan::Packer {
 public:
  explicit Packer(std::byte* data) : at_(data) {}

  // Room for rows x cols elements that the caller fills.
  template <class T>
  T* add(const T* to, int64_t rows, int64_t cols, int64_t to_stride) {
    constexpr auto kWords = static_cast<int64_t>(sizeof(T) / sizeof(int32_t));
    auto* from = reinterpret_cast<T*>(at_);
    at_ += static_cast<size_t>(rows * cols) * sizeof(T);
    if (rows * cols == 0) return from;
    // The device arrays are the plan's own; they are const for the kernels that read them.
    auto* target = reinterpret_cast<int32_t*>(const_cast<T*>(to));
    spread_.parts[spread_.num_parts++] = {reinterpret_cast<const int32_t*>(from), target, rows, cols * kWords,
                                          to_stride * kWords};
    return from;
  }
  template <class T>
  void copy(const T* to, const T* values, int64_t count) {
    std::copy_n(values, count, add(to, 1, count, count));
  }
  const Spread& spread() const { return spread_; }

 private:
  std::byte* at_;
  Spread spread_;
};

Plan::Plan(Context& context, const tm_plan_limits& limits)
    : limits_(limits), schedule_(schedule_limits(context, limits)) {
  limits_.shapes = nullptr;  // the caller's
  limits_.num_shapes = 0;
  context.set_thread();
  allocate();
}

void Plan::allocate() {
  const auto cut = [&](void* data) {
    Cutter cutter(data);
    counts_ = cutter.take<Counts>(1);
    view_.cu_seqlens_q = cutter.take<int32_t>(limits_.max_seqs + 1);
    view_.context_lens = cutter.take<int32_t>(limits_.max_seqs);
    view_.block_table = cutter.take<int32_t>(limits_.max_seqs * limits_.max_blocks_per_seq);
    view_.row_seq = cutter.take<int32_t>(limits_.max_tokens);
    view_.row_slot = cutter.take<int32_t>(limits_.max_tokens);
    short_items_ = cutter.take<AttentionItem>(schedule_.max_short_items(limits_.max_seqs));
    for (size_t i = 0; i < kTilePositions.size(); ++i) {
      tiles_[i] = cutter.take<AttentionItem>(
          AttentionSchedule::max_tiles(limits_.max_tokens, limits_.max_seqs, kTilePositions[i]));
    }
    merges_ = cutter.take<MergeItem>(schedule_.max_merges());
    row_ends_ = cutter.take<int32_t>(limits_.max_tokens);
    return cutter.used();
  };
  staging_bytes_ = cut(nullptr);
  device_data_ = allocate_device(staging_bytes_);
  cut(device_data_.get());
  view_.num_tokens = &counts_->num_tokens;
  view_.block_table_stride = limits_.max_blocks_per_seq;
  check_cuda(cudaMemset(device_data_.get(), 0, staging_bytes_), "cudaMemset");
  for (size_t i = 0; i < kNumStaging; ++i) staging_.push_back({allocate_pinned(staging_bytes_), make_event()});
}

void Plan::update(Stream& stream, const tm_step_meta& meta) {
  abi::check_step_meta(meta, limits_);
  num_seqs_ = meta.num_seqs;
  num_tokens_ = meta.num_tokens;
  padded_tokens_ = std::max(meta.num_tokens, meta.padded_tokens);
  padded_seqs_ = std::max(meta.num_seqs, meta.padded_seqs);
  max_q_len_ = meta.max_q_len;
  has_blocks_ = meta.block_table != nullptr && meta.context_lens != nullptr;
  schedule_.update({meta.cu_seqlens_q, has_blocks_ ? meta.context_lens : nullptr, meta.num_seqs,
                    has_blocks_ ? meta.block_table : nullptr, meta.block_table_stride, limits_.block_size});

  Staging& staging = next_staging();
  Packer packer(staging.data.get());
  const auto size = [](const auto& list) { return static_cast<int32_t>(list.size()); };
  Counts counts{};
  counts.num_tokens = static_cast<int32_t>(num_tokens_);
  counts.short_items = size(schedule_.short_items());
  for (size_t i = 0; i < kTilePositions.size(); ++i) counts.tiles[i] = size(schedule_.tiles(i));
  counts.merges = size(schedule_.merges());
  packer.copy(counts_, &counts, 1);
  packer.copy(view_.cu_seqlens_q, meta.cu_seqlens_q, num_seqs_ + 1);
  const auto copy_list = [&](const auto* to, const auto& list) { packer.copy(to, list.data(), size(list)); };
  copy_list(short_items_, schedule_.short_items());
  for (size_t i = 0; i < kTilePositions.size(); ++i) copy_list(tiles_[i], schedule_.tiles(i));
  copy_list(merges_, schedule_.merges());
  int32_t* row_seq = packer.add(view_.row_seq, 1, padded_tokens_, padded_tokens_);
  int32_t* row_slot = packer.add(view_.row_slot, 1, padded_tokens_, padded_tokens_);
  fill_rows(meta, row_seq, row_slot);
  const int64_t num_spans = abi::count_spans(meta);
  knows_spans_ |= num_spans > 0;
  view_.row_end = num_spans > 0 ? row_ends_ : nullptr;
  if (knows_spans_ && has_blocks_) {
    abi::fill_row_ends(meta, packer.add(row_ends_, 1, num_tokens_, num_tokens_));
  }
  if (has_blocks_) {
    packer.copy(view_.context_lens, meta.context_lens, num_seqs_);
    const int32_t* longest = std::max_element(meta.context_lens, meta.context_lens + num_seqs_);
    const int64_t blocks = num_seqs_ > 0 ? (*longest + limits_.block_size - 1) / limits_.block_size : 0;
    int32_t* table = packer.add(view_.block_table, num_seqs_, blocks, limits_.max_blocks_per_seq);
    for (int64_t seq = 0; seq < num_seqs_; ++seq) {
      const int64_t own = (meta.context_lens[seq] + limits_.block_size - 1) / limits_.block_size;
      std::fill(std::copy_n(meta.block_table + seq * meta.block_table_stride, own, table + seq * blocks),
                table + (seq + 1) * blocks, 0);
    }
  }
  launch_spread(stream.handle(), packer.spread());
  check_cuda(cudaEventRecord(staging.read.get(), stream.handle()), "cudaEventRecord");
}

Plan::Staging& Plan::next_staging() {
  Staging& staging = staging_[next_staging_++ % staging_.size()];
  check_cuda(cudaEventSynchronize(staging.read.get()), "cudaEventSynchronize");
  return staging;
}

void Plan::fill_rows(const tm_step_meta& meta, int32_t* row_seq, int32_t* row_slot) const {
  for (int64_t seq = 0; seq < num_seqs_; ++seq) {
    const int32_t begin = meta.cu_seqlens_q[seq];
    const int32_t end = meta.cu_seqlens_q[seq + 1];
    std::fill(row_seq + begin, row_seq + end, static_cast<int32_t>(seq));
    if (!has_blocks_) continue;
    const int32_t* table = meta.block_table + seq * meta.block_table_stride;
    int32_t position = meta.context_lens[seq] - (end - begin);
    for (int32_t row = begin; row < end; ++row, ++position) {
      row_slot[row] = table[position / limits_.block_size] * limits_.block_size + position % limits_.block_size;
    }
  }
  if (!has_blocks_) std::fill(row_slot, row_slot + num_tokens_, -1);
  std::fill(row_seq + num_tokens_, row_seq + padded_tokens_, -1);
  std::fill(row_slot + num_tokens_, row_slot + padded_tokens_, -1);
}

AttentionItems Plan::short_items(const Stream& stream) const {
  const int64_t capacity = stream.capturing() ? schedule_.max_short_items(padded_seqs_)
                                              : static_cast<int64_t>(schedule_.short_items().size());
  return {short_items_, &counts_->short_items, static_cast<int32_t>(capacity)};
}

int Plan::max_short_rows(const Stream& stream) const {
  if (stream.capturing()) return static_cast<int>(std::clamp<int64_t>(max_q_len_, 1, kShortRows));
  int32_t most = 1;
  for (const AttentionItem& item : schedule_.short_items()) most = std::max(most, item.positions);
  return most;
}

AttentionItems Plan::tiles(const Stream& stream, int positions) const {
  const auto* at = std::find(kTilePositions.begin(), kTilePositions.end(), positions);
  const auto list = static_cast<size_t>(at - kTilePositions.begin());
  int64_t capacity = static_cast<int64_t>(schedule_.tiles(list).size());
  if (stream.capturing()) {
    // Steps whose sequences are all short have no tiles.
    const bool none = has_blocks_ && max_q_len_ <= kShortRows;
    capacity = none ? 0 : AttentionSchedule::max_tiles(padded_tokens_, padded_seqs_, positions);
  }
  return {tiles_[list], &counts_->tiles[list], static_cast<int32_t>(capacity)};
}

MergeItems Plan::merges(const Stream& stream) const {
  const int64_t capacity = stream.capturing() ? std::min(schedule_.max_merges(), padded_tokens_)
                                              : static_cast<int64_t>(schedule_.merges().size());
  return {merges_, &counts_->merges, static_cast<int32_t>(capacity)};
}

}  // namespace turbomind::cuda
