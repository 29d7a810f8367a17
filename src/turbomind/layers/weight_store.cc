// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/weight_store.h"

#include <utility>

#include "turbomind/core/log.h"
#include "turbomind/layers/weight_quantizer.h"
#include "turbomind/layers/weight_slice.h"
#include "turbomind/ops/dequantize.h"

namespace turbomind {
namespace {

constexpr int kMaxListedNames = 8;

void check_source(const WeightSource& source, int64_t rows, int64_t cols) {
  check(source.rows == rows && source.cols == cols, ErrorCode::kInvalidArgument, "expected shape [", rows, ", ", cols,
        "], found [", source.rows, ", ", source.cols, "]");
  check_source_bytes(source);
}

}  // namespace

void WeightStore::declare(const std::string& name, int64_t rows, int64_t cols, Take take) {
  const bool inserted = slots_.emplace(name, Slot{rows, cols, std::move(take)}).second;
  check(inserted, ErrorCode::kInternal, "weight ", name, ": declared by two layers");
}

void WeightStore::load(const WeightSource& source) {
  const auto found = slots_.find(source.name);
  check(found != slots_.end(), ErrorCode::kInvalidArgument, "weight ", source.name, ": expected one of the model's ",
        slots_.size(), " weights, found an unknown name");
  Slot& slot = found->second;
  check(!slot.loaded, ErrorCode::kInvalidArgument, "weight ", source.name, ": expected once, found a second time");
  try {
    check_source(source, slot.rows, slot.cols);
    slot.take(source);
  } catch (const Error& error) {
    fail(error.code(), "weight ", source.name, ": ", error.what());
  }
  slot.loaded = true;
}

void WeightStore::check_complete() const {
  std::string listed;
  int missing = 0;
  for (const auto& [name, slot] : slots_) {
    if (slot.loaded) continue;
    if (missing++ < kMaxListedNames) listed += (listed.empty() ? "" : ", ") + name;
  }
  check(missing == 0, ErrorCode::kInvalidArgument, "weights: expected all of the model's ", slots_.size(), ", found ",
        missing, " missing: ", listed, missing > kMaxListedNames ? ", ..." : "");
  check(!to_int8_ || some_int8_, ErrorCode::kUnsupported,
        "weight_dtype: expected a model with weights of floats and a ",
        "backend that computes on int8, found none that can become int8", reason_against_int8_);
}

WeightSource WeightStore::in_wanted_format(const WeightSource& source, tm_weight_desc desc) {
  if (!to_int8_ || !is_float_format(source.format)) return source;
  desc.format = TM_WEIGHT_INT8_CHANNEL;
  desc.scale_dtype = TM_F32;
  const tm_weight_info info = PackedWeight::query(device_, desc);
  if (info.supported) {
    some_int8_ = true;
    return quantize_to_int8(source);
  }
  if (reason_against_int8_.empty()) {
    reason_against_int8_ = std::string(": ") + info.reason;
    log(LogLevel::kWarning, source.name, " does not become int8: ", info.reason, "; others like it neither");
  }
  return source;
}

std::vector<std::string> WeightStore::names() const {
  std::vector<std::string> names;
  for (const auto& entry : slots_) names.push_back(entry.first);
  return names;
}

PackedWeight WeightStore::pack(const tm_weight_desc& desc, std::shared_ptr<const void> keep_alive) {
  PackedWeight weight = loader_.load(desc, std::move(keep_alive));
  device_bytes_ += weight.device_bytes();
  return weight;
}

Buffer WeightStore::reserve(size_t bytes) {
  Buffer buffer(device_, bytes);
  device_bytes_ += bytes;
  return buffer;
}

void WeightStore::upload(const Buffer& buffer, size_t offset, const void* values, size_t bytes) {
  stream_.copy(static_cast<char*>(buffer.data()) + offset, values, bytes, TM_HOST_TO_DEVICE);
  stream_.synchronize();
}

}  // namespace turbomind
