// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <set>
#include <vector>

#include "turbomind/runtime/device.h"

namespace turbomind {

// Puts checkpoint weights onto a device: as they are where the backend takes the format, else converted on the host to
// the nearest format it takes (logged once per format).
class WeightLoader {
 public:
  WeightLoader(const Device& device, Stream& stream) : device_(device), stream_(stream) {}

  struct Choice {
    WeightFormat format;
    tm_compute compute;
  };

  // keep_alive owns the memory of desc.parts (a mapped file); it is held as long as the backend reads it. struct_size
  // is filled here. Throws kUnsupported, with the backend's reason, if no convertible format is taken.
  PackedWeight load(tm_weight_desc desc, std::shared_ptr<const void> keep_alive = nullptr);

  // What load() would hand to the backend: the weight's own format, else a convertible one; where the backend takes
  // none for TM_COMPUTE_FLOAT32, its default arithmetic. Throws as load().
  Choice choose(tm_weight_desc desc) const;

 private:
  void log_choice(const tm_weight_desc& desc, const Choice& choice);

  const Device& device_;
  Stream& stream_;
  std::set<std::pair<WeightFormat, tm_compute>> logged_;
};

// A weight converted on the host, owning its memory.
struct ConvertedWeight {
  std::vector<std::vector<uint8_t>> data;  // one array per part
  std::vector<tm_weight_part> parts;       // views of data
  tm_weight_desc desc;                     // desc.parts views parts
};

// to: TM_WEIGHT_F32, F16 or BF16. Throws kInvalidArgument for another format or an ill-formed desc.
std::shared_ptr<const ConvertedWeight> convert_weight(const tm_weight_desc& desc, WeightFormat to);

}  // namespace turbomind
