// SPDX-License-Identifier: Apache-2.0
//
// Optional help for plug-ins: what every back end does alike. Settings, properties, checks of arguments that come from
// the core, scratch memory.
#pragma once

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>

#include "tm_backend.hpp"

namespace turbomind::abi {

// ---- dtypes and tensors ----

constexpr uint64_t dtype_bit(tm_dtype dtype) { return uint64_t{1} << dtype; }

// 0: a dtype of a later minor version.
constexpr int64_t dtype_bytes(tm_dtype dtype) {
  switch (dtype) {
    case TM_I8:
    case TM_U8:
    case TM_F8_E4M3:
    case TM_F8_E5M2:
      return 1;
    case TM_F16:
    case TM_BF16:
      return 2;
    case TM_F32:
    case TM_I32:
    case TM_U32:
      return 4;
    case TM_I64:
    case TM_U64:
      return 8;
    default:
      return 0;
  }
}

constexpr int64_t num_elements(const tm_tensor& tensor) {
  int64_t count = 1;
  for (int32_t i = 0; i < tensor.ndim; ++i) count *= tensor.shape[i];
  return count;
}

constexpr int64_t num_bytes(const tm_tensor& tensor) { return num_elements(tensor) * dtype_bytes(tensor.dtype); }

// ---- settings and properties ----

// Fills a fixed character array; cuts what does not fit.
template <size_t N>
void copy_text(char (&out)[N], std::string_view text) {
  const size_t length = std::min(text.size(), N - 1);
  std::memcpy(out, text.data(), length);
  out[length] = '\0';
}

// Throws TM_INVALID_ARGUMENT, naming the key.
[[noreturn]] inline void reject_setting(std::string_view key, std::string_view value, std::string_view expected) {
  throw Error(TM_INVALID_ARGUMENT, "config key '" + std::string(key) + "': expected " + std::string(expected) +
                                       ", found '" + std::string(value) + "'");
}

inline int parse_int_setting(std::string_view key, std::string_view value, int low, int high) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size() || number < low || number > high) {
    reject_setting(key, value, "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return number;
}

// fn(key, value) for each entry; false from it means that the backend does not know the key. `known` lists the keys.
template <class Fn>
void for_each_setting(const tm_config& config, const char* backend, const char* known, Fn fn) {
  for (size_t i = 0; i < config.num_entries; ++i) {
    const std::string_view key = config.entries[i].key ? config.entries[i].key : "";
    const std::string_view value = config.entries[i].value ? config.entries[i].value : "";
    if (fn(key, value)) continue;
    throw Error(TM_INVALID_ARGUMENT,
                "unknown config key '" + std::string(key) + "'; the " + backend + " backend knows " + known);
  }
}

inline void check_device_index(int32_t index, int32_t count) {
  if (index >= 0 && index < count) return;
  throw Error(TM_INVALID_ARGUMENT,
              "device_index: expected 0 to " + std::to_string(count - 1) + ", found " + std::to_string(index));
}

// ---- weights ----

inline bool is_dense(tm_weight_format format) {
  return format == TM_WEIGHT_F32 || format == TM_WEIGHT_F16 || format == TM_WEIGHT_BF16;
}

// Of a dense weight's elements.
inline tm_dtype dense_dtype(tm_weight_format format) {
  return format == TM_WEIGHT_F32 ? TM_F32 : format == TM_WEIGHT_F16 ? TM_F16 : TM_BF16;
}

// Why a backend whose matrix units want both operands in one dtype of 16 or 32 bits does not take a weight, whatever
// its format; empty: it may.
inline std::string reason_against_operands(const tm_weight_desc& desc, const std::string& backend) {
  if (desc.rows <= 0 || desc.cols <= 0) return "an empty matrix";
  if (desc.activation_dtype != TM_F32 && desc.activation_dtype != TM_F16 && desc.activation_dtype != TM_BF16) {
    return "the " + backend + " backend takes float32, float16 and bfloat16 activations";
  }
  if (desc.compute == TM_COMPUTE_FLOAT32 && desc.activation_dtype != TM_F32) {
    return "the " + backend + " backend computes in float32 on float32 activations only";
  }
  return {};
}

// Fills in the answer to a query: an empty reason takes the weight. packed_bytes() is asked only then.
template <class PackedBytes>
void answer_weight_query(const std::string& reason, PackedBytes packed_bytes, tm_weight_info* out) {
  tm_weight_info info{};
  info.struct_size = std::min(out->struct_size, sizeof info);
  info.supported = reason.empty();
  if (info.supported) info.packed_bytes = packed_bytes();
  copy_text(info.reason, reason);
  std::memcpy(out, &info, info.struct_size);
}

// ---- the KV cache and plans ----

inline void check_kv_spec(bool condition, const char* field, const char* expected, int64_t found) {
  if (condition) return;
  throw Error(TM_UNSUPPORTED,
              std::string("kv spec: ") + field + ": expected " + expected + ", found " + std::to_string(found));
}

[[noreturn]] inline void reject_plan(const std::string& message) {
  throw Error(TM_INVALID_ARGUMENT, "plan: " + message);
}

inline void check_plan_limits(const tm_plan_limits& limits) {
  if (limits.max_tokens < 0 || limits.max_seqs < 0 || limits.max_blocks_per_seq < 0) {
    reject_plan("limits must not be negative");
  }
  if (limits.max_blocks_per_seq > 0 && limits.block_size <= 0) reject_plan("block_size must be positive");
}

// That a step is consistent in itself and within the plan's limits.
inline void check_step_meta(const tm_step_meta& meta, const tm_plan_limits& limits) {
  const auto check_within = [](const char* name, int64_t value, const char* bound_name, int64_t bound) {
    if (value >= 0 && value <= bound) return;
    reject_plan(std::string(name) + " " + std::to_string(value) + " is beyond " + bound_name + " " +
                std::to_string(bound));
  };
  check_within("num_seqs", meta.num_seqs, "max_seqs", limits.max_seqs);
  check_within("num_tokens", meta.num_tokens, "max_tokens", limits.max_tokens);
  check_within("padded_seqs", meta.padded_seqs, "max_seqs", limits.max_seqs);
  check_within("padded_tokens", meta.padded_tokens, "max_tokens", limits.max_tokens);
  if (!meta.cu_seqlens_q) reject_plan("cu_seqlens_q is NULL");
  if (meta.cu_seqlens_q[0] != 0 || meta.cu_seqlens_q[meta.num_seqs] != meta.num_tokens) {
    reject_plan("cu_seqlens_q must run from 0 to num_tokens");
  }
  for (int64_t seq = 0; seq < meta.num_seqs; ++seq) {
    const int32_t length = meta.cu_seqlens_q[seq + 1] - meta.cu_seqlens_q[seq];
    if (length < 0) reject_plan("cu_seqlens_q must not descend");
    if (!meta.context_lens || !meta.block_table) continue;
    const int64_t context = meta.context_lens[seq];
    if (context < length) {
      reject_plan("context_lens[" + std::to_string(seq) + "] is shorter than the sequence's rows");
    }
    if (context > limits.max_blocks_per_seq * limits.block_size) {
      reject_plan("context_lens[" + std::to_string(seq) + "] is beyond max_blocks_per_seq");
    }
  }
}

// Spans of positions that see each other; a host of an older minor version knows none.
inline int64_t count_spans(const tm_step_meta& meta) {
  if (meta.struct_size < offsetof(tm_step_meta, num_spans) + sizeof meta.num_spans) return 0;
  if (meta.num_spans != 0 && (!meta.spans || !meta.context_lens || !meta.block_table)) {
    reject_plan("spans need context_lens and block_table");
  }
  return meta.num_spans;
}

// Of each of the step's rows the first position that it does not see: the one behind its own, or its span's end. Wants
// context_lens. Throws TM_INVALID_ARGUMENT if spans are out of order or outside their sequence's context.
inline void fill_row_ends(const tm_step_meta& meta, int32_t* row_ends) {
  const auto first_position = [&](int64_t seq) {
    return meta.context_lens[seq] - (meta.cu_seqlens_q[seq + 1] - meta.cu_seqlens_q[seq]);
  };
  for (int64_t seq = 0; seq < meta.num_seqs; ++seq) {
    std::iota(row_ends + meta.cu_seqlens_q[seq], row_ends + meta.cu_seqlens_q[seq + 1], first_position(seq) + 1);
  }
  int32_t last_seq = 0;
  int32_t last_end = 0;
  const int64_t count = count_spans(meta);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t seq = meta.spans[3 * i];
    const int32_t begin = meta.spans[3 * i + 1];
    const int32_t end = meta.spans[3 * i + 2];
    const bool follows = seq > last_seq || (seq == last_seq && begin >= last_end);
    if (!follows || seq >= meta.num_seqs || begin < 0 || begin >= end || end > meta.context_lens[seq]) {
      reject_plan("spans[" + std::to_string(i) + "] must follow the one before and lie inside its sequence's context");
    }
    last_seq = seq;
    last_end = end;
    const int32_t first = first_position(seq);
    for (int32_t position = std::max(begin, first); position < end; ++position) {
      row_ends[meta.cu_seqlens_q[seq] + position - first] = end;
    }
  }
}

// ---- collectives of asynchronous backends ----

// Set once a group of ranks gave up; what waited for its collectives did not get their results.
using AbortFlag = std::atomic<bool>;

inline void check_not_aborted(const std::shared_ptr<const AbortFlag>& aborted) {
  if (aborted && *aborted) throw Error(TM_DEVICE_ERROR, "a collective was aborted before all ranks had joined");
}

// ---- scratch memory ----

// Cuts the caller's scratch memory into arrays. The same sequence of take() calls on a counting arena gives the size,
// so <op>_workspace and the op share one function that lays the scratch memory out.
template <size_t kAlignment>
class WorkspaceArena {
 public:
  // Counts only: take() returns nullptr.
  WorkspaceArena() = default;
  explicit WorkspaceArena(const tm_workspace& workspace)
      : data_(static_cast<std::byte*>(workspace.data)), bytes_(workspace.bytes), counting_(false) {}

  // Uninitialised array of `count` T, aligned. Throws Error if the workspace is too small.
  template <class T>
  T* take(int64_t count) {
    const size_t offset = used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    if (counting_ || count == 0) return nullptr;
    if (used_ > bytes_) {
      throw Error(TM_INVALID_ARGUMENT,
                  "workspace: expected at least " + std::to_string(used_) + " bytes, found " + std::to_string(bytes_));
    }
    return reinterpret_cast<T*>(data_ + offset);
  }

  size_t used() const { return used_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  size_t used_ = 0;
  bool counting_ = true;
};

// One function per op; a template so that `requires` looks the name up in Ops.
#define TM_TOOLS_WORKSPACE(name)                                                          \
  template <class Ops, class Context>                                                     \
  size_t workspace_of_##name(Context& context, const void* args) {                        \
    if constexpr (requires { &Ops::name##_workspace; }) {                                 \
      return Ops::name##_workspace(context, *static_cast<const tm_##name##_args*>(args)); \
    } else {                                                                              \
      static_cast<void>(context), static_cast<void>(args);                                \
      return 0;                                                                           \
    }                                                                                     \
  }
TM_ALL_OPS(TM_TOOLS_WORKSPACE)
#undef TM_TOOLS_WORKSPACE

// Answers workspace_size() by Ops::<op>_workspace(context, args); 0 for an op without one.
template <class Ops, class Context>
size_t workspace_size(Context& context, tm_op_id op, const void* args) {
  switch (op) {
#define TM_TOOLS_CASE(name) \
  case TM_OP_##name:        \
    return workspace_of_##name<Ops>(context, args);
    TM_ALL_OPS(TM_TOOLS_CASE)
#undef TM_TOOLS_CASE
    default:
      throw Error(TM_INVALID_ARGUMENT, "op: expected one of tm_op_id, found " + std::to_string(static_cast<int>(op)));
  }
}

}  // namespace turbomind::abi
