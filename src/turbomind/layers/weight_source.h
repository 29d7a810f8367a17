// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "tm_backend.h"

namespace turbomind {

// One tensor of a checkpoint, [rows, cols] row-major in its own format, in host memory. A vector has cols == 1.
struct WeightSource {
  std::string name;  // canonical, e.g. "layers.0.q_proj"
  tm_weight_format format = TM_WEIGHT_F32;
  int64_t rows = 0;
  int64_t cols = 0;
  const void* data = nullptr;
  size_t bytes = 0;
  // Formats with separate scales only; laid out as tm_weight_format says, without gaps.
  const void* scales = nullptr;
  size_t scale_bytes = 0;
  tm_dtype scale_dtype = TM_F32;
  const void* zeros = nullptr;  // u8, as many as there are scales; optional
  size_t zero_bytes = 0;
  int32_t group_size = 0;  // int4/int8 groups only
  // Owns all the memory above. A backend may go on reading it, so it is held until the decoder is destroyed; without
  // an owner the memory must outlive the decoder.
  std::shared_ptr<const void> owner;
};

}  // namespace turbomind
