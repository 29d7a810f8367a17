// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/options.h"

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

void require_at_least(const char* name, int64_t value, int64_t minimum) {
  check(value >= minimum, ErrorCode::kInvalidArgument, name, ": expected at least ", minimum, ", found ", value);
}

void require_one_of(const char* name, const std::string& value, std::initializer_list<std::string_view> words) {
  if (std::find(words.begin(), words.end(), value) != words.end()) return;
  std::string list;
  for (const std::string_view word : words) list += (list.empty() ? "" : ", ") + std::string(word);
  fail(ErrorCode::kInvalidArgument, name, ": expected one of ", list, ", found '", value, "'");
}

}  // namespace

void validate(const EngineOptions& options) {
  check(!options.backend.empty(), ErrorCode::kInvalidArgument, "backend: expected a name, found an empty string");
  require_at_least("device_index", options.device_index, 0);
  require_at_least("num_threads", options.num_threads, 0);
  require_at_least("tp", options.tp, 1);
  require_one_of("dtype", options.dtype, {"auto", "float32", "bfloat16", "float16"});
  require_one_of("weight_dtype", options.weight_dtype, {"auto", "int8"});
  require_one_of("compute_dtype", options.compute_dtype, {"auto", "float32"});
  require_one_of("kv_cache_dtype", options.kv_cache_dtype, {"auto", "float32", "bfloat16", "float16", "int8"});
  require_at_least("block_size", options.block_size, 0);
  require_at_least("session_len", options.session_len, 0);
  require_at_least("max_num_seqs", options.max_num_seqs, 1);
  // Every decoding sequence takes one token of each step.
  require_at_least("max_num_batched_tokens", options.max_num_batched_tokens, options.max_num_seqs);
  check(options.cache_memory_fraction >= 0.0 && options.cache_memory_fraction <= 1.0, ErrorCode::kInvalidArgument,
        "cache_memory_fraction: expected a value in [0, 1], found ", options.cache_memory_fraction);
  check(options.num_kv_blocks >= 0 && options.num_kv_blocks <= INT32_MAX, ErrorCode::kInvalidArgument,
        "num_kv_blocks: expected a value in [0, ", INT32_MAX, "], found ", options.num_kv_blocks);
  require_at_least("max_encoder_patches", options.max_encoder_patches, 0);
  require_at_least("encoder_cache_bytes", options.encoder_cache_bytes, 0);
  require_at_least("max_queue_size", options.max_queue_size, 1);
}

}  // namespace turbomind
