// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "turbomind/layers/weight_source.h"
#include "turbomind/ops/weight_loader.h"

namespace turbomind {

// Which weights a model needs, by canonical name, and who takes them; moves them onto the device and counts the bytes.
class WeightStore {
 public:
  // Called once with a source of the declared shape. What it throws is passed on with the weight's name in front.
  using Take = std::function<void(const WeightSource&)>;

  // to_int8: what layers multiply with becomes int8_channel where it is of floats and the backend computes on that.
  WeightStore(const Device& device, Stream& stream, bool to_int8 = false)
      : device_(device), stream_(stream), loader_(device, stream), to_int8_(to_int8) {}

  // A layer's wish; take must stay callable as long as the store is loaded from.
  void declare(const std::string& name, int64_t rows, int64_t cols, Take take);
  // Throws kInvalidArgument for an unknown or repeated name, a wrong shape or size.
  void load(const WeightSource& source);
  // Throws kInvalidArgument that lists what has not been loaded; kUnsupported if to_int8 came to nothing.
  void check_complete() const;
  std::vector<std::string> names() const;

  // The source in the format it is to be packed in. desc: of the weight it will be part of.
  WeightSource in_wanted_format(const WeightSource& source, tm_weight_desc desc);
  PackedWeight pack(const tm_weight_desc& desc, std::shared_ptr<const void> keep_alive);
  // Returns when the values are on the device. offset: bytes.
  void upload(const Buffer& buffer, size_t offset, const void* values, size_t bytes);
  Buffer reserve(size_t bytes);

  size_t device_bytes() const { return device_bytes_; }

 private:
  struct Slot {
    int64_t rows;
    int64_t cols;
    Take take;
    bool loaded = false;
  };

  const Device& device_;
  Stream& stream_;
  WeightLoader loader_;
  std::map<std::string, Slot> slots_;
  size_t device_bytes_ = 0;
  bool to_int8_;
  bool some_int8_ = false;
  std::string reason_against_int8_;  // of the first weight that is left as it is
};

}  // namespace turbomind
