// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "kv_layout.h"
#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::ascend {
namespace {

constexpr size_t kNumStaging = 4;
constexpr size_t kAlignment = 512;  // bytes, of every array

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

Plan::Plan(Context& context, const tm_plan_limits& limits) : context_(context), limits_(limits) {
  abi::check_plan_limits(limits);
  limits_.shapes = nullptr;  // the caller's
  limits_.num_shapes = 0;
  context.set_thread();
  const int64_t rows = std::max<int64_t>(limits.max_tokens, 1);
  const int64_t sequences = limits.max_seqs + 1;
  const int64_t blocks = std::max<int64_t>(limits.max_blocks_per_seq, 1);
  const size_t ints = aligned(static_cast<size_t>(rows) * sizeof(int32_t));
  const size_t bounds = aligned(static_cast<size_t>(sequences) * sizeof(int32_t));
  row_bytes_ = 4 * ints + 2 * bounds + aligned(static_cast<size_t>(rows));
  const size_t table_bytes = static_cast<size_t>(sequences * blocks) * sizeof(int32_t);
  device_data_ = Memory(TM_MEMORY_DEVICE, row_bytes_ + table_bytes);
  auto* at = static_cast<std::byte*>(device_data_.data());
  slots_ = make_view(at, kAclInt32, {rows});
  positions_ = make_view(at + ints, kAclInt32, {rows});
  sequences_ = make_view(at + 2 * ints, kAclInt32, {rows});
  row_ends_ = make_view(at + 3 * ints, kAclInt32, {rows});
  firsts_ = make_view(at + 4 * ints, kAclInt32, {sequences});
  lasts_ = make_view(at + 4 * ints + bounds, kAclInt32, {sequences});
  padding_ = make_view(at + 4 * ints + 2 * bounds, kAclBool, {rows});
  table_ = make_view(at + row_bytes_, kAclInt32, {sequences, blocks});
  for (size_t i = 0; i < kNumStaging; ++i) {
    staging_.push_back({Memory(TM_MEMORY_PINNED_HOST, row_bytes_ + table_bytes), EventHandle()});
  }
}

Plan::~Plan() { context_.set_thread_if_possible(); }

void Plan::update(Stream& stream, const tm_step_meta& meta) {
  abi::check_step_meta(meta, limits_);
  if (meta.padded_tokens - meta.num_tokens > kSparePlaces) {
    abi::reject_plan("at most " + std::to_string(kSparePlaces) + " padding rows have a place to be written to");
  }
  keep_host_values(meta);
  Staging& staging = next_staging(stream);
  auto* image = static_cast<std::byte*>(staging.data.data());
  fill_rows(image, meta);
  fill_sequences(image, meta);
  fill_table(staged<int32_t>(image, table_), meta);
  // The sequences in use and one more, which padding rows are given to.
  const auto table_bytes = static_cast<size_t>((padded_seqs_ + 1) * table_.dim(1)) * sizeof(int32_t);
  stream.copy_async(device_data_.data(), image, row_bytes_ + table_bytes, TM_HOST_TO_DEVICE);
  staging.read.record(stream.handle());
  staging.used = true;
  staging.aborts = stream.num_aborts();
}

void Plan::keep_host_values(const tm_step_meta& meta) {
  num_seqs_ = meta.num_seqs;
  num_tokens_ = meta.num_tokens;
  padded_tokens_ = std::max(meta.num_tokens, meta.padded_tokens);
  padded_seqs_ = std::max(meta.num_seqs, meta.padded_seqs);
  max_q_len_ = meta.max_q_len;
  has_blocks_ = meta.block_table != nullptr && meta.context_lens != nullptr;
  has_spans_ = abi::count_spans(meta) > 0;
  q_ends_.assign(meta.cu_seqlens_q + 1, meta.cu_seqlens_q + meta.num_seqs + 1);
  contexts_.clear();
  if (has_blocks_) contexts_.assign(meta.context_lens, meta.context_lens + meta.num_seqs);
}

void Plan::fill_rows(std::byte* image, const tm_step_meta& meta) const {
  const auto rows = static_cast<size_t>(slots_.dim(0));
  auto* slots = staged<int32_t>(image, slots_);
  auto* positions = staged<int32_t>(image, positions_);
  auto* row_ends = staged<int32_t>(image, row_ends_);
  auto* sequences = staged<int32_t>(image, sequences_);
  auto* padding = staged<uint8_t>(image, padding_);
  for (int64_t seq = 0; seq < num_seqs_; ++seq) {
    const int32_t begin = meta.cu_seqlens_q[seq];
    const int32_t end = meta.cu_seqlens_q[seq + 1];
    std::fill(sequences + begin, sequences + end, static_cast<int32_t>(seq));
    if (!has_blocks_) continue;
    const int32_t* table = meta.block_table + seq * meta.block_table_stride;
    int32_t position = meta.context_lens[seq] - (end - begin);
    for (int32_t row = begin; row < end; ++row, ++position) {
      positions[row] = position;
      slots[row] = table[position / limits_.block_size] * limits_.block_size + position % limits_.block_size +
                   static_cast<int32_t>(kSparePlaces);
    }
  }
  if (has_blocks_) abi::fill_row_ends(meta, row_ends);
  std::fill(padding, padding + num_tokens_, uint8_t{0});
  for (auto row = static_cast<size_t>(num_tokens_); row < rows; ++row) {
    // Beyond the spare places lies no step that is captured; update() sees to it.
    slots[row] = static_cast<int32_t>(std::min<size_t>(row - static_cast<size_t>(num_tokens_), kSparePlaces - 1));
    positions[row] = -1;
    row_ends[row] = 0;
    sequences[row] = 0;
    padding[row] = 1;
  }
}

void Plan::fill_sequences(std::byte* image, const tm_step_meta& meta) const {
  auto* firsts = staged<int32_t>(image, firsts_);
  auto* lasts = staged<int32_t>(image, lasts_);
  std::fill(firsts, firsts + firsts_.dim(0), -1);
  std::fill(lasts, lasts + lasts_.dim(0), -1);
  for (int64_t seq = 0; has_blocks_ && seq < num_seqs_; ++seq) {
    firsts[seq] = meta.context_lens[seq] - (meta.cu_seqlens_q[seq + 1] - meta.cu_seqlens_q[seq]);
    lasts[seq] = meta.context_lens[seq] - 1;
  }
}

void Plan::fill_table(int32_t* table, const tm_step_meta& meta) const {
  const int64_t width = table_.dim(1);
  std::fill(table, table + (padded_seqs_ + 1) * width, 0);
  for (int64_t seq = 0; has_blocks_ && seq < num_seqs_; ++seq) {
    const int64_t own = (meta.context_lens[seq] + limits_.block_size - 1) / limits_.block_size;
    // Entries before every window may be negative; operators do not check them.
    for (int64_t i = 0; i < own; ++i) {
      table[seq * width + i] = std::max(meta.block_table[seq * meta.block_table_stride + i], 0);
    }
  }
}

Plan::Staging& Plan::next_staging(const Stream& stream) {
  Staging& staging = staging_[next_staging_++ % staging_.size()];
  if (!staging.used) return staging;
  // An abort may have dropped the event: then what is queued is waited for, which a dropped copy is not.
  if (staging.aborts == stream.num_aborts()) {
    staging.read.synchronize(stream.context(), stream.aborted());
  } else {
    stream.drain();
  }
  return staging;
}

int64_t Plan::longest_context() const {
  return contexts_.empty() ? 0 : *std::max_element(contexts_.begin(), contexts_.end());
}

bool Plan::has_single_rows() const {
  int64_t begin = 0;
  for (const int64_t end : q_ends_) {
    if (end - begin == 1) return true;
    begin = end;
  }
  return false;
}

}  // namespace turbomind::ascend
