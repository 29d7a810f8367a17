// SPDX-License-Identifier: Apache-2.0
#include "case.h"

#include <algorithm>
#include <cstring>

namespace turbomind::conformance {
namespace {

constexpr size_t kGuardBytes = 256;
constexpr uint8_t kPoisonByte = 0xFF;

// Slices [rows, cols] of a larger matrix, cut into parts of whole rows.
std::vector<tm_weight_part> slice_parts(const reference::RawWeight& raw, int64_t rows, const WeightOptions& options) {
  const reference::FormatShape shape = reference::format_shape(raw.format);
  const int64_t num_parts = options.num_experts > 0 ? options.num_experts : options.num_parts;
  const bool row_blocks = raw.format == TM_WEIGHT_FP8_BLOCK128;
  const int64_t group = row_blocks ? 128 : raw.group_size > 0 ? raw.group_size : raw.format == TM_WEIGHT_MXFP4 ? 32 : 0;
  const int64_t scale_col = group ? options.skipped_cols / group : 0;
  std::vector<tm_weight_part> parts;
  for (int64_t i = 0; i < num_parts; ++i) {
    const int64_t begin = options.skipped_rows + rows * i / num_parts;
    const int64_t end = options.skipped_rows + rows * (i + 1) / num_parts;
    tm_weight_part part{
        .data = raw.codes.data() + begin * raw.row_bytes + options.skipped_cols / shape.block * shape.block_bytes,
        .rows = end - begin,
        .row_stride_bytes = raw.row_bytes,
        .scale_stride_bytes = raw.scale_row_bytes,
        .zero_stride_bytes = raw.zero_row_bytes,
        .scale_row_phase = row_blocks ? static_cast<int32_t>(begin % 128) : 0,
        .scale_col_phase = group ? static_cast<int32_t>(options.skipped_cols % group) : 0,
        .global_scale = options.global_scale};
    const int64_t scale_row = row_blocks ? begin / 128 : raw.format == TM_WEIGHT_FP8_TENSOR ? 0 : begin;
    const auto scale_bytes = static_cast<int64_t>(dtype_size(raw.scale_dtype));
    if (!raw.scales.empty()) {
      part.scales = raw.scales.data() + scale_row * raw.scale_row_bytes + scale_col * scale_bytes;
    }
    if (!raw.zeros.empty()) part.zeros = raw.zeros.data() + begin * raw.zero_row_bytes + scale_col;
    parts.push_back(part);
  }
  return parts;
}

}  // namespace

void TestPlan::set(const std::vector<int64_t>& q_lens, const std::vector<int64_t>& contexts,
                   const std::vector<std::vector<int64_t>>& table) {
  cu_seqlens_q.assign(1, 0);
  for (const int64_t length : q_lens) cu_seqlens_q.push_back(cu_seqlens_q.back() + static_cast<int32_t>(length));
  max_q_len = q_lens.empty() ? 0 : *std::max_element(q_lens.begin(), q_lens.end());
  context_lens.assign(contexts.begin(), contexts.end());
  table_stride = 0;
  for (const auto& blocks : table) table_stride = std::max(table_stride, static_cast<int64_t>(blocks.size()));
  block_table.assign(static_cast<size_t>(table_stride) * table.size(), -1);
  for (size_t s = 0; s < table.size(); ++s) {
    std::copy(table[s].begin(), table[s].end(), block_table.begin() + static_cast<std::ptrdiff_t>(s) * table_stride);
  }
}

void TestPlan::update(Stream& stream, bool for_graph) {
  const int64_t num_seqs = static_cast<int64_t>(cu_seqlens_q.size()) - 1;
  const bool padded = for_graph || padding > 0;
  plan.update(stream, {.num_seqs = num_seqs,
                       .num_tokens = cu_seqlens_q.back(),
                       .cu_seqlens_q = cu_seqlens_q.data(),
                       .context_lens = context_lens.empty() ? nullptr : context_lens.data(),
                       .block_table = block_table.empty() ? nullptr : block_table.data(),
                       .block_table_stride = table_stride,
                       .padded_tokens = padded ? cu_seqlens_q.back() + padding : 0,
                       .padded_seqs = padded ? num_seqs : 0,
                       .max_q_len = static_cast<int32_t>(max_q_len),
                       .spans = spans.data(),
                       .num_spans = static_cast<int64_t>(spans.size() / 3)});
}

TestTensor& Case::input(std::string name, DType dtype, std::vector<int64_t> shape, int64_t row_gap) {
  return tensors_.emplace_back(device_, std::move(name), Role::kInput, dtype, std::move(shape), row_gap);
}

TestTensor& Case::output(std::string name, DType dtype, std::vector<int64_t> shape, int64_t row_gap) {
  return tensors_.emplace_back(device_, std::move(name), Role::kOutput, dtype, std::move(shape), row_gap);
}

TestTensor& Case::in_out(std::string name, DType dtype, std::vector<int64_t> shape, int64_t row_gap) {
  return tensors_.emplace_back(device_, std::move(name), Role::kInOut, dtype, std::move(shape), row_gap);
}

TestWeight& Case::weight(tm_weight_format format, int64_t rows, int64_t cols, const WeightOptions& options) {
  const int64_t all_rows = rows * std::max(options.num_experts, 1);
  auto raw = std::make_shared<reference::RawWeight>(reference::make_weight(
      format, options.skipped_rows + all_rows, cols + 2 * options.skipped_cols, [this] { return random.next(); }));
  const std::vector<tm_weight_part> parts = slice_parts(*raw, all_rows, options);
  const tm_weight_desc desc{.format = format,
                            .compute = options.compute,
                            .scale_dtype = raw->scale_dtype,
                            .group_size = raw->group_size,
                            .num_experts = options.num_experts,
                            .is_embedding = options.is_embedding,
                            .rows = rows,
                            .cols = cols,
                            .parts = parts.data(),
                            .num_parts = static_cast<int32_t>(parts.size()),
                            .activation_dtype = options.activation};
  const tm_weight_info info = PackedWeight::query(device_, desc);
  if (!info.supported) throw NotOffered{info.reason};
  TestWeight& weight = weights_.emplace_back();
  for (int64_t row = 0; row < all_rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      const double value = reference::weight_value(*raw, options.skipped_rows + row, options.skipped_cols + col);
      weight.values.push_back(options.global_scale == 0 ? value : value * options.global_scale);
    }
  }
  weight.packed = PackedWeight(device_, stream_, desc, raw);
  if (!info.borrows_source) {
    // The backend said that it has copied all it needs.
    for (auto* bytes : {&raw->codes, &raw->scales, &raw->zeros}) std::fill(bytes->begin(), bytes->end(), kPoisonByte);
  }
  return weight;
}

TestWeight Case::pack(const reference::RawWeight& raw, tm_dtype activation) const {
  auto copy = std::make_shared<const reference::RawWeight>(raw);
  const std::vector<tm_weight_part> parts = slice_parts(*copy, raw.rows, {});
  const tm_weight_desc desc{.format = raw.format,
                            .scale_dtype = raw.scale_dtype,
                            .group_size = raw.group_size,
                            .rows = raw.rows,
                            .cols = raw.cols,
                            .parts = parts.data(),
                            .num_parts = 1,
                            .activation_dtype = activation};
  const tm_weight_info info = PackedWeight::query(device_, desc);
  if (!info.supported) throw NotOffered{info.reason};
  return {{}, PackedWeight(device_, stream_, desc, copy)};
}

TestPlan& Case::plan(const tm_plan_limits& limits) { return plans_.emplace_back(device_, limits); }

tm_kv_pool Case::kv_pool(const tm_kv_spec& spec, int64_t num_blocks) {
  size_t bytes = 0;
  try {
    bytes = device_.kv_pool_bytes(spec, num_blocks);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kUnsupported) throw NotOffered{error.what()};
    throw;
  }
  Scratch& pool = pools_.emplace_back(Scratch{Buffer(device_, bytes + 2 * kGuardBytes), bytes});
  return {static_cast<char*>(pool.buffer.data()) + kGuardBytes, num_blocks, spec};
}

tm_workspace Case::next_workspace(size_t bytes) {
  const size_t index = next_workspace_++;
  if (index == workspaces_.size()) workspaces_.emplace_back();
  Scratch& scratch = workspaces_[index];
  if (scratch.buffer.bytes() < bytes + 2 * kGuardBytes) {
    check(!stream_.capturing(), ErrorCode::kInternal, "a captured op asks for more workspace than before");
    stream_.synchronize();
    scratch.buffer = Buffer(device_, bytes + 2 * kGuardBytes);
    stream_.memset(scratch.buffer.data(), kPoisonByte, scratch.buffer.bytes());
  }
  scratch.bytes = bytes;
  return {static_cast<char*>(scratch.buffer.data()) + kGuardBytes, bytes};
}

void Case::reset_scratch() {
  next_workspace_ = 0;
  for (auto* list : {&pools_, &workspaces_}) {
    for (Scratch& scratch : *list) stream_.memset(scratch.buffer.data(), kPoisonByte, scratch.buffer.bytes());
  }
  for (Scratch& pool : pools_) stream_.memset(static_cast<char*>(pool.buffer.data()) + kGuardBytes, 0, pool.bytes);
}

std::string Case::changed_guards() {
  for (auto* list : {&pools_, &workspaces_}) {
    for (Scratch& scratch : *list) {
      const char* const buffer = static_cast<const char*>(scratch.buffer.data());
      const size_t end = kGuardBytes + scratch.bytes;
      std::vector<uint8_t> guards(scratch.buffer.bytes() - scratch.bytes);
      stream_.copy(guards.data(), buffer, kGuardBytes, TM_DEVICE_TO_HOST);
      stream_.copy(guards.data() + kGuardBytes, buffer + end, guards.size() - kGuardBytes, TM_DEVICE_TO_HOST);
      stream_.synchronize();
      if (std::any_of(guards.begin(), guards.end(), [](uint8_t byte) { return byte != kPoisonByte; })) {
        return std::string(list == &pools_ ? "KV pool" : "workspace") + " of " + std::to_string(scratch.bytes) +
               " bytes: written outside of it";
      }
    }
  }
  return {};
}

}  // namespace turbomind::conformance
