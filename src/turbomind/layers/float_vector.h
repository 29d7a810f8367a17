// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "turbomind/layers/shard.h"
#include "turbomind/layers/weight_store.h"

namespace turbomind {

// A norm weight or bias on the device, f32 [size], filled from one or several sources.
class FloatVector {
 public:
  FloatVector(WeightStore& store, int64_t size);

  // Rows of source go to [begin, begin + rows.count). Takes f32, f16 and bf16.
  void load(const WeightSource& source, Range rows, int64_t begin);
  Tensor tensor() const { return make_tensor(buffer_.data(), TM_F32, {size_}); }

 private:
  WeightStore& store_;
  int64_t size_;
  Buffer buffer_;
};

}  // namespace turbomind
