// SPDX-License-Identifier: Apache-2.0
#include "backend.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "recorder.h"

namespace turbomind::null_backend {
namespace {

using abi::Error;

constexpr size_t kAlignment = 256;

size_t align_up(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

uint64_t parse_number(const std::string& key, const std::string& value) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size()) {
    throw Error(TM_INVALID_ARGUMENT, "setting " + key + ": expected a number, found '" + value + "'");
  }
  return number;
}

TokenRule parse_rule(const std::string& value) {
  if (value == "counter") return TokenRule::kCounter;
  if (value == "hash") return TokenRule::kHash;
  if (value == "context") return TokenRule::kContext;
  throw Error(TM_INVALID_ARGUMENT, "setting tokens: expected counter, hash or context, found '" + value + "'");
}

std::set<int> parse_formats(const std::string& value) {
  std::set<int> formats;
  for (size_t begin = 0; begin < value.size();) {
    const size_t end = std::min(value.find(',', begin), value.size());
    formats.insert(static_cast<int>(parse_number("weight_formats", value.substr(begin, end - begin))));
    begin = end + 1;
  }
  return formats;
}

}  // namespace

Settings::Settings(const tm_config& config) {
  for (size_t i = 0; i < config.num_entries; ++i) {
    const std::string key = config.entries[i].key;
    const std::string value = config.entries[i].value;
    if (key == "tokens") {
      tokens = parse_rule(value);
    } else if (key == "memory_bytes") {
      memory_bytes = parse_number(key, value);
    } else if (key == "asynchronous") {
      asynchronous = parse_number(key, value) != 0;
    } else if (key == "can_capture") {
      can_capture = parse_number(key, value) != 0;
    } else if (key == "host_accessible") {
      host_accessible = parse_number(key, value) != 0;
    } else if (key == "sample_delay_us") {
      sample_delay_us = static_cast<int64_t>(parse_number(key, value));
    } else if (key == "weight_formats") {
      weight_formats = parse_formats(value);
    } else if (key != "deterministic" && key != "num_threads") {
      throw Error(TM_INVALID_ARGUMENT, "setting '" + key + "' is unknown to the null backend");
    }
  }
}

Context::Context(int32_t, const tm_config& config, const tm_host_api*) : settings_(config) {
  Recorder::instance().record("context_create");
}

void Context::props(tm_device_props* out) const {
  tm_device_props props{};
  props.struct_size = out->struct_size;
  std::strncpy(props.name, "null device", sizeof props.name - 1);
  std::strncpy(props.arch, "null", sizeof props.arch - 1);
  props.total_memory_bytes = settings_.memory_bytes;
  props.memory_alignment = kAlignment;
  props.activation_dtypes = 1u << TM_F32;
  props.kv_dtypes = 1u << TM_F32 | 1u << TM_BF16 | 1u << TM_F16 | 1u << TM_I8;
  props.preferred_activation = TM_F32;
  props.preferred_kv = TM_F32;
  const int32_t block_sizes[] = {1, 2, 4, 8, 16, 32, 64};
  std::copy(std::begin(block_sizes), std::end(block_sizes), props.kv_block_sizes);
  props.preferred_kv_block_size = 16;
  props.host_accessible = settings_.host_accessible;
  props.always_deterministic = 1;
  props.can_capture = settings_.can_capture;
  props.asynchronous = settings_.asynchronous;
  props.num_compute_units = 1;
  std::memcpy(out, &props, std::min(out->struct_size, sizeof props));
}

void Context::mem_info(uint64_t* free_bytes, uint64_t* total_bytes) const {
  *total_bytes = settings_.memory_bytes;
  *free_bytes = settings_.memory_bytes - used_bytes_;
}

// The size stands in front of the bytes handed out. Host memory is not counted.
void* Context::alloc(tm_memory_kind kind, size_t bytes) {
  Recorder::instance().record("alloc");
  const size_t size = align_up(bytes);
  if (size < bytes || (kind == TM_MEMORY_DEVICE && size > settings_.memory_bytes - used_bytes_)) return nullptr;
  auto* base = static_cast<char*>(std::aligned_alloc(kAlignment, kAlignment + size));
  if (!base) return nullptr;
  std::memcpy(base, &size, sizeof size);
  if (kind == TM_MEMORY_DEVICE) used_bytes_ += size;
  return base + kAlignment;
}

void Context::free(tm_memory_kind kind, void* data) {
  if (!data) return;
  char* base = static_cast<char*>(data) - kAlignment;
  size_t size;
  std::memcpy(&size, base, sizeof size);
  if (kind == TM_MEMORY_DEVICE) used_bytes_ -= size;
  std::free(base);
}

void Context::query_weight(const tm_weight_desc& desc, tm_weight_info* out) const {
  out->supported = settings_.weight_formats.empty() || settings_.weight_formats.count(desc.format);
  out->packed_bytes = 0;
  out->borrows_source = 0;
  std::strncpy(out->reason, out->supported ? "" : "not among the setting weight_formats", sizeof out->reason - 1);
}

size_t Context::kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const {
  // One number per token.
  return static_cast<size_t>(num_blocks) * static_cast<size_t>(spec.block_size) * sizeof(float);
}

void Stream::issue(Task task) {
  if (capturing_) {
    captured_.push_back(std::move(task));
  } else if (context_.settings().asynchronous) {
    waiting_.push_back(std::move(task));
  } else {
    Recorder::instance().may_run(task.op, true);
    task.run();
  }
}

bool Stream::advance(bool wait) {
  if (waiting_.empty() || !Recorder::instance().may_run(waiting_.front().op, wait)) return false;
  const Task task = std::move(waiting_.front());
  waiting_.pop_front();
  try {
    task.run();
  } catch (...) {
    waiting_.clear();
    throw;
  }
  return true;
}

void Stream::drain() {
  while (advance(true)) {
  }
}

void Stream::copy_async(void* dst, const void* src, size_t bytes, tm_copy_kind) {
  issue([=] {
    Recorder::instance().record("copy_async");
    std::memcpy(dst, src, bytes);
  });
}

void Stream::memset_async(void* dst, int value, size_t bytes) {
  issue([=] { std::memset(dst, value, bytes); });
}

void Stream::synchronize() {
  Recorder::instance().record("stream_synchronize");
  if (capturing_) throw Error(TM_INVALID_ARGUMENT, "stream_synchronize while capturing");
  drain();
}

void Stream::capture_begin() {
  Recorder::instance().record("capture_begin");
  if (!context_.settings().can_capture) throw Error(TM_UNSUPPORTED, "capture is off by the setting can_capture");
  if (capturing_) throw Error(TM_INVALID_ARGUMENT, "capture_begin while capturing");
  capturing_ = true;
  captured_.clear();
}

std::unique_ptr<Graph> Stream::capture_end() {
  if (!capturing_) throw Error(TM_INVALID_ARGUMENT, "capture_end without capture_begin");
  capturing_ = false;
  return std::make_unique<Graph>(std::move(captured_));
}

void Graph::launch(Stream& stream, tm_plan* const*, int32_t) {
  Recorder::instance().record("graph_launch");
  for (const Task& task : tasks_) stream.issue(task);
}

void Event::record(Stream& stream) {
  stream_ = &stream;
  reached_ = std::make_shared<bool>(false);
  stream.issue([reached = reached_] { *reached = true; });
}

void Event::wait(Stream& stream) {
  stream.issue([source = stream_, reached = reached_] {
    while (!*reached && source->advance(true)) {
    }
  });
}

void Event::synchronize() {
  while (!*reached_ && stream_->advance(true)) {
  }
}

bool Event::query() {
  if (!*reached_) stream_->advance(false);
  return *reached_;
}

Weight::Weight(Stream&, const tm_weight_desc&, void*) { Recorder::instance().record("weight_pack"); }

void Plan::update(Stream& stream, const tm_step_meta& meta) {
  if (stream.capturing()) throw Error(TM_INVALID_ARGUMENT, "plan update while capturing");
  abi::host::Step updated = step_;
  updated.update(meta);  // copies the host's arrays and checks them now; work issued before keeps the old step
  stream.issue([this, updated = std::move(updated)] {
    Recorder::instance().record("plan_update");
    step_ = updated;
  });
}

}  // namespace turbomind::null_backend

TM_EXPORT_BACKEND(turbomind::null_backend::Backend)
