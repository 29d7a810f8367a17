// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/memory_plan.h"

#include <algorithm>
#include <sstream>

namespace turbomind {
namespace {

constexpr double kDeviceFraction = 0.9;
// Host memory is shared with the rest of the machine.
constexpr double kHostFraction = 0.1;
constexpr int64_t kMinBlocks = 2;
constexpr const char* kRemedy =
    "num_kv_blocks, cache_max_entry_count, kv_cache_dtype, max_prefill_token_num and tp change this";

std::string format_bytes(uint64_t bytes) {
  std::ostringstream text;
  text.setf(std::ios::fixed);
  text.precision(1);
  text << static_cast<double>(bytes) / (1 << 20) << " MiB";
  return text.str();
}

// Free bytes per rank; ranks on one device share what it has.
uint64_t free_bytes_per_rank(RankGroup& ranks) {
  uint64_t least = UINT64_MAX;
  for (int32_t i = 0; i < ranks.size(); ++i) least = std::min(least, ranks.rank(i).device.memory_info().free_bytes);
  const bool shared = ranks.rank(0).device.props().host_accessible != 0;
  return shared ? least / static_cast<uint64_t>(ranks.size()) : least;
}

// The most blocks, up to limit, whose pools take at most so many bytes.
int64_t largest_fit(const Decoder& decoder, uint64_t bytes, int64_t limit) {
  int64_t low = 0;
  int64_t high = limit;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (decoder.kv_pool_bytes(middle) <= bytes) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

int64_t blocks_by_memory(Rank& rank, const KvSizing& sizing, uint64_t free_bytes) {
  const bool host = rank.device.props().host_accessible != 0;
  const double fraction = sizing.fraction > 0.0 ? sizing.fraction : host ? kHostFraction : kDeviceFraction;
  const int64_t per_sequence = (sizing.session_len + sizing.block_size - 1) / sizing.block_size;
  const int64_t limit = host ? per_sequence * sizing.max_num_seqs : INT32_MAX;
  const auto budget = static_cast<uint64_t>(fraction * static_cast<double>(free_bytes));
  const int64_t blocks = largest_fit(*rank.decoder, budget, limit);
  check(blocks >= kMinBlocks, ErrorCode::kOutOfMemory, "KV cache: expected room for at least ", kMinBlocks,
        " blocks of ", sizing.block_size, " tokens (", format_bytes(rank.decoder->kv_pool_bytes(kMinBlocks)), ") in ",
        format_bytes(budget), ", ", fraction, " of the ", format_bytes(free_bytes), " left; ", kRemedy);
  return blocks;
}

// The caller's own size, if it can be had.
int64_t blocks_by_request(Rank& rank, const KvSizing& sizing, uint64_t free_bytes) {
  const uint64_t wanted = rank.decoder->kv_pool_bytes(sizing.num_blocks);
  check(wanted <= free_bytes, ErrorCode::kOutOfMemory, "KV cache: num_kv_blocks: expected at most the ",
        format_bytes(free_bytes), " that are free, found ", format_bytes(wanted), " (", wanted, " bytes) for ",
        sizing.num_blocks, " blocks of ", sizing.block_size, " tokens; ", kRemedy);
  return sizing.num_blocks;
}

}  // namespace

MemoryPlan plan_memory(RankGroup& ranks, const KvSizing& sizing) {
  Rank& rank = ranks.rank(0);
  MemoryPlan plan;
  plan.on_host = rank.device.props().host_accessible != 0;
  plan.device_free_bytes = free_bytes_per_rank(ranks);
  plan.block_size = sizing.block_size;
  plan.num_kv_blocks = sizing.num_blocks ? blocks_by_request(rank, sizing, plan.device_free_bytes)
                                         : blocks_by_memory(rank, sizing, plan.device_free_bytes);
  plan.kv_capacity = plan.num_kv_blocks * sizing.block_size;
  plan.max_sequence_len = std::min(sizing.session_len, plan.kv_capacity);
  plan.lines.push_back({"weights", rank.decoder->weight_bytes(), "packed; without what the backend reads in place"});
  plan.lines.push_back({"activations", rank.decoder->activation_bytes(), "largest step, logits and workspace"});
  plan.lines.push_back({"step buffers", rank.runner->buffer_bytes(), "inputs and sampled tokens"});
  plan.lines.push_back({"sampling", rank.runner->sampling_bytes(),
                        "scratch, token masks and penalties; long penalised answers take more"});
  if (rank.encoder) {
    plan.lines.push_back({"vision weights", rank.encoder->weight_bytes(), "likewise"});
    plan.lines.push_back({"vision activations", rank.encoder->activation_bytes(), "the most patches of one step"});
    plan.lines.push_back({"picture embeddings", rank.encoder_runner->buffer_bytes(), "kept by content"});
  }
  std::ostringstream detail;
  detail << plan.num_kv_blocks << " blocks of " << plan.block_size << " tokens, " << plan.kv_capacity << " in all";
  plan.lines.push_back({"KV cache", rank.decoder->kv_pool_bytes(plan.num_kv_blocks), detail.str()});
  return plan;
}

void allocate_kv(RankGroup& ranks, const MemoryPlan& plan) {
  try {
    ranks.run([&](Rank& rank, int32_t) { rank.decoder->allocate_kv(plan.num_kv_blocks); });
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    const MemoryPlan::Line& line = plan.lines.back();
    fail(ErrorCode::kOutOfMemory, line.name, ": expected ", format_bytes(line.bytes), " (", line.detail,
         "), found the device out of memory though ", format_bytes(plan.device_free_bytes), " were free; ", kRemedy,
         ": ", error.what());
  }
}

std::string MemoryPlan::to_string() const {
  std::ostringstream text;
  for (const Line& line : lines) text << line.name << ": " << format_bytes(line.bytes) << " (" << line.detail << ")\n";
  text << "longest sequence: " << max_sequence_len << " tokens";
  return text.str();
}

}  // namespace turbomind
