// SPDX-License-Identifier: Apache-2.0
//
// What is no op: memory, copies, events, properties, plans, and the refusals the contract asks for.
#include <cstring>
#include <vector>

#include "suite.h"

namespace turbomind::conformance {
namespace {

// Runs fn; empty if it throws an Error of that code, else what happened instead.
std::string expect_error(const char* what, ErrorCode code, const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    if (error.code() != code) return std::string(what) + ": expected " + to_string(code) + ", found " + error.what();
    if (std::strlen(error.what()) < 10) return std::string(what) + ": the error has no text";
    return {};
  }
  return std::string(what) + ": was accepted";
}

std::string check_properties(const Session& session) {
  const tm_device_props& props = session.device.props();
  if (!props.name[0] || !props.arch[0]) return "name and arch must be filled";
  if (props.total_memory_bytes == 0) return "total_memory_bytes is 0";
  if (props.memory_alignment & (props.memory_alignment - 1)) return "memory_alignment is no power of two";
  if (!dtype_in(TM_F32, props.activation_dtypes)) return "activations in f32 are required";
  if (!dtype_in(props.preferred_activation, props.activation_dtypes)) return "preferred_activation is not offered";
  if (!dtype_in(props.preferred_kv, props.kv_dtypes)) return "preferred_kv is not offered";
  bool preferred = false;
  int32_t last = 0;
  for (const int32_t size : props.kv_block_sizes) {
    if (size == 0) break;
    if (size <= last) return "kv_block_sizes must ascend";
    last = size;
    preferred = preferred || size == props.preferred_kv_block_size;
  }
  if (!preferred) return "preferred_kv_block_size is not among kv_block_sizes";
  if (props.can_capture && !session.device.plugin().graph()) return "can_capture is set, but the graph table is NULL";
  return props.num_compute_units > 0 ? "" : "num_compute_units must be positive";
}

std::string check_memory(const Session& session) {
  const MemoryInfo before = session.device.memory_info();
  if (before.free_bytes > before.total_bytes) return "mem_info: more free than there is";
  for (const tm_memory_kind kind : {TM_MEMORY_DEVICE, TM_MEMORY_PINNED_HOST}) {
    for (const size_t bytes : {size_t{1}, size_t{4097}, size_t{1} << 22}) {
      const Buffer buffer(session.device, bytes, kind);
      if (reinterpret_cast<uintptr_t>(buffer.data()) % session.device.props().memory_alignment) {
        return "alloc: " + std::to_string(bytes) + " bytes are not aligned to memory_alignment";
      }
    }
  }
  const Plugin& plugin = session.device.plugin();
  plugin.device().free(session.device.handle(), TM_MEMORY_DEVICE, nullptr);
  return expect_error("alloc of 2^60 bytes", ErrorCode::kOutOfMemory,
                      [&] { const Buffer buffer(session.device, size_t{1} << 60); });
}

std::string check_copies(const Session& session) {
  constexpr size_t kBytes = 100003;
  std::vector<uint8_t> source(kBytes);
  Random random(3);
  for (uint8_t& byte : source) byte = static_cast<uint8_t>(random.next());
  std::vector<uint8_t> target(kBytes, 0);
  const Buffer first(session.device, kBytes);
  const Buffer second(session.device, kBytes);
  Stream& stream = session.stream;
  stream.copy(first.data(), source.data(), kBytes, TM_HOST_TO_DEVICE);
  stream.memset(second.data(), 0x5A, kBytes);
  // Odd offsets and lengths.
  stream.copy(static_cast<char*>(second.data()) + 3, static_cast<char*>(first.data()) + 1, kBytes - 10,
              TM_DEVICE_TO_DEVICE);
  stream.copy(target.data(), second.data(), kBytes, TM_DEVICE_TO_HOST);
  stream.synchronize();
  for (size_t i = 0; i < kBytes; ++i) {
    const uint8_t expected = i < 3 || i >= kBytes - 7 ? 0x5A : source[i - 2];
    if (target[i] != expected) return "byte " + std::to_string(i) + " differs after copies and memset";
  }
  return {};
}

std::string check_events(const Session& session) {
  Stream other(session.device);
  Event event(session.device);
  std::vector<int32_t> values(1 << 16, 1);
  std::vector<int32_t> seen(values.size(), 0);
  const Buffer buffer(session.device, values.size() * 4);
  session.stream.memset(buffer.data(), 0, buffer.bytes());
  session.stream.copy(buffer.data(), values.data(), buffer.bytes(), TM_HOST_TO_DEVICE);
  event.record(session.stream);
  event.wait(other);
  other.copy(seen.data(), buffer.data(), buffer.bytes(), TM_DEVICE_TO_HOST);
  other.synchronize();
  if (seen != values) return "a stream that waited for an event did not see the work before it";
  event.synchronize();
  if (!event.reached()) return "event_query: not reached after event_synchronize";
  event.record(session.stream);  // an event may be recorded again
  session.stream.synchronize();
  return event.reached() ? "" : "event_query: not reached after the stream was synchronised";
}

std::string check_refused_settings(const Session& session) {
  const Plugin& plugin = session.device.plugin();
  return expect_error("an unknown setting", ErrorCode::kInvalidArgument,
                      [&] { const Device device(plugin, 0, {{"no_such_setting", "1"}}); });
}

std::string check_refused_index(const Session& session) {
  const Plugin& plugin = session.device.plugin();
  tm_context* context = nullptr;
  const tm_config none{nullptr, 0};
  if (plugin.device().context_create(plugin.device_count(), &none, &context) == TM_OK) {
    plugin.device().context_destroy(context);
    return "context_create took a device index beyond count()";
  }
  return {};
}

std::string check_settings_every_backend_knows(const Session& session) {
  Config config = session.config;
  config.set("deterministic", "1");
  config.set("num_threads", "1");
  const Device device(session.device.plugin(), 0, config);
  return device.props().num_compute_units > 0 ? "" : "num_compute_units must be positive";
}

std::string check_refused_weights(const Session& session) {
  const tm_weight_desc desc{.format = static_cast<tm_weight_format>(63), .rows = 4, .cols = 32};
  const tm_weight_info info = PackedWeight::query(session.device, desc);
  if (info.supported) return "query took weight format 63";
  if (!info.reason[0]) return "query refused a format without a reason";
  // GGUF rows are whole blocks.
  const tm_weight_info ragged =
      PackedWeight::query(session.device, {.format = TM_WEIGHT_GGUF_Q4_0, .rows = 4, .cols = 33});
  return ragged.supported ? "query took a q4_0 weight of 33 columns" : "";
}

std::string check_required_weights(const Session& session) {
  bool any = false;
  for (const tm_weight_format format : {TM_WEIGHT_F32, TM_WEIGHT_F16, TM_WEIGHT_BF16}) {
    for (const tm_compute compute : {TM_COMPUTE_DEFAULT, TM_COMPUTE_FLOAT32}) {
      const tm_weight_desc desc{.format = format, .compute = compute, .rows = 64, .cols = 64};
      any = any || PackedWeight::query(session.device, desc).supported;
    }
  }
  return any ? "" : "none of f32, f16 and bf16 weights is taken: the core could convert to nothing";
}

std::string check_refused_kv_spec(const Session& session) {
  const tm_kv_spec spec{.num_kv_heads = 2, .head_dim_k = 64, .head_dim_v = 64, .block_size = 7777, .dtype = TM_F32};
  return expect_error("a KV block size that is not offered", ErrorCode::kUnsupported,
                      [&] { session.device.kv_pool_bytes(spec, 4); });
}

std::string check_pool_bytes_linear(const Session& session) {
  const tm_device_props& props = session.device.props();
  const tm_kv_spec spec{.num_kv_heads = 2,
                        .head_dim_k = 64,
                        .head_dim_v = 64,
                        .block_size = props.preferred_kv_block_size,
                        .dtype = props.preferred_kv};
  const size_t one = session.device.kv_pool_bytes(spec, 1);
  const size_t two = session.device.kv_pool_bytes(spec, 2);
  const size_t hundred = session.device.kv_pool_bytes(spec, 100);
  return hundred <= one + 99 * (two - one) ? "" : "pool_bytes grows faster than linearly in num_blocks";
}

std::string check_plan_limits(const Session& session) {
  Plan plan(session.device, {.max_tokens = 4,
                             .max_seqs = 2,
                             .max_blocks_per_seq = 1,
                             .block_size = session.device.props().preferred_kv_block_size});
  const std::vector<int32_t> cu{0, 5};
  const std::vector<int32_t> lens{5};
  const std::vector<int32_t> table{0};
  return expect_error("a step beyond the plan's limits", ErrorCode::kInvalidArgument, [&] {
    plan.update(session.stream, {.num_seqs = 1,
                                 .num_tokens = 5,
                                 .cu_seqlens_q = cu.data(),
                                 .context_lens = lens.data(),
                                 .block_table = table.data(),
                                 .block_table_stride = 1});
    session.stream.synchronize();
  });
}

// The core cannot look into a weight, so the backend checks its shape.
std::string check_weight_shapes(const Session& session) {
  Case c(session.device, session.stream, 5);
  TestWeight& weight = c.weight(TM_WEIGHT_F32, 8, 64);
  TestTensor& x = c.input("x", TM_F32, {2, 32});
  TestTensor& wide = c.input("wide", TM_F32, {2, 64});
  TestTensor& out = c.output("out", TM_F32, {2, 8});
  TestTensor& short_out = c.output("short_out", TM_F32, {2, 7});
  const auto linear = [&](const TestTensor& in, const TestTensor& to) {
    c.call(TM_OP_linear, c.op().linear,
           tm_linear_args{.x = in.view(), .num_weights = 1, .weight = {weight.handle()}, .out = {to.view()}});
    session.stream.synchronize();
  };
  const std::string wrong =
      expect_error("linear with 32 columns on a weight of 64", ErrorCode::kInvalidArgument, [&] { linear(x, out); });
  if (!wrong.empty()) return wrong;
  return expect_error("linear with 7 outputs on a weight of 8 rows", ErrorCode::kInvalidArgument,
                      [&] { linear(wide, short_out); });
}

std::string check_workspace_monotone(const Session& session) {
  size_t last = 0;
  for (const int64_t rows : {1, 2, 7, 64, 500}) {
    const Tensor logits = make_tensor(static_cast<void*>(nullptr), TM_F32, {rows, 1000});
    const Tensor scalar = make_tensor(static_cast<void*>(nullptr), TM_F32, {rows});
    const tm_sample_args args{.struct_size = sizeof(tm_sample_args), .logits = logits, .temperature = scalar};
    size_t bytes = 0;
    const Plugin& plugin = session.device.plugin();
    plugin.check_status(plugin.op().workspace_size(session.device.handle(), TM_OP_sample, &args, &bytes), "sample");
    if (bytes < last) return "workspace_size of sample shrinks with more rows";
    last = bytes;
  }
  return {};
}

}  // namespace

void add_device_checks(Suite& suite) {
  suite.add_check("device", "properties", check_properties);
  suite.add_check("device", "memory", check_memory);
  suite.add_check("device", "copies", check_copies);
  suite.add_check("device", "events", check_events);
  suite.add_check("device", "unknown_setting_is_refused", check_refused_settings);
  suite.add_check("device", "bad_index_is_refused", check_refused_index);
  suite.add_check("device", "common_settings", check_settings_every_backend_knows);
  suite.add_check("weights", "unknown_format_is_refused", check_refused_weights);
  suite.add_check("weights", "a_float_format_is_taken", check_required_weights);
  suite.add_check("kv", "odd_block_size_is_refused", check_refused_kv_spec);
  suite.add_check("kv", "pool_bytes_linear", check_pool_bytes_linear);
  suite.add_check("plans", "limits_are_checked", check_plan_limits);
  suite.add_check("linear", "shapes_are_checked", check_weight_shapes);
  suite.add_check("sample", "workspace_monotone", check_workspace_monotone);
}

}  // namespace turbomind::conformance
