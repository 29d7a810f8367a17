// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>

#include "turbomind/core/error.h"
#include "turbomind/ops/ops.h"
#include "turbomind/runtime/arena.h"
#include "turbomind/runtime/input_buffer.h"

namespace turbomind {

// What an encoder computes in on one stream: inputs, activations and scratch of the ops, sized once by its largest
// call.
class StepMemory {
 public:
  // Walks the largest call, on shapes alone; returns the bytes of its inputs.
  using Walk = std::function<size_t(Ops&, Arena&)>;

  StepMemory(const Device& device, Stream& stream)
      : device_(device),
        stream_(stream),
        workspace_(device, stream),
        ops_(device, stream, workspace_),
        inputs_(device, stream) {}

  void reserve(const Walk& largest_call);
  bool is_reserved() const { return arena_.has_value(); }

  Ops& ops() { return ops_; }
  InputBuffer& inputs() { return inputs_; }
  Arena& arena() { return *arena_; }  // from reserve() on
  // Device bytes of all three.
  size_t bytes() const { return arena_bytes_ + workspace_.bytes() + inputs_.device_bytes(); }

 private:
  const Device& device_;
  Stream& stream_;
  Workspace workspace_;
  Ops ops_;
  InputBuffer inputs_;
  std::optional<Arena> arena_;
  size_t arena_bytes_ = 0;
};

}  // namespace turbomind
