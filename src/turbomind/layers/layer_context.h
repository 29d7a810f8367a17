// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "turbomind/layers/weight_store.h"
#include "turbomind/ops/ops.h"

namespace turbomind {

// What layers are built with. Outlives them.
struct LayerContext {
  const Device& device;
  Stream& stream;
  Comm* comm;  // null: one rank
  tm_dtype activation_dtype;
  tm_compute compute;
  tm_dtype kv_dtype;
  int32_t kv_block_size;  // tokens
  WeightStore& weights;

  int rank() const { return comm ? comm->rank() : 0; }
  int world_size() const { return comm ? comm->size() : 1; }
};

// That of an encoder: no cache, and every rank computes for itself, as encoders are small beside decoders and their
// heads rarely divide.
inline LayerContext encoder_context(const Device& device, Stream& stream, WeightStore& weights, tm_dtype activation,
                                    tm_compute compute) {
  return {.device = device,
          .stream = stream,
          .comm = nullptr,
          .activation_dtype = activation,
          .compute = compute,
          .kv_dtype = activation,
          .kv_block_size = 0,
          .weights = weights};
}

// What layers run with, given anew each step. "float" tensors carry the activation dtype.
struct StepContext {
  Ops& ops;
  Arena& arena;
  Comm* comm;  // null: one rank
  const Plan& plan;
  Tensor positions;  // i32 [T], or [3, T] for ropes with axes

  // Sums float [T, H] over the ranks, in place.
  void all_reduce(const Tensor& x) const {
    if (comm && !arena.measuring()) comm->all_reduce(ops.stream(), x, x);
  }
};

// Rows of a step that are wanted, where not all are.
struct WantedRows {
  Tensor rows;                 // i32 [R], distinct, in [0, T)
  const Plan* plan = nullptr;  // has each of them as a sequence's only row, in their order; with R = 0 it is not read

  int64_t count() const { return rows.shape[0]; }
};

}  // namespace turbomind
