// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "turbomind/core/tensor.h"
#include "turbomind/layers/weight_source.h"
#include "turbomind/ops/ops.h"
#include "vision/encoder/encoder_config.h"
#include "vision/encoder/encoder_item.h"

namespace turbomind {

struct EncoderOptions {
  tm_dtype activation_dtype = TM_F32;
  tm_compute compute = TM_COMPUTE_DEFAULT;
  bool int8_weights = false;  // see WeightStore
  int64_t max_rows = 0;       // of all items of one call
};

// A vision transformer on one device: weights, activations and the walk from patches to embeddings. Knows no model
// family. Used by the thread that owns the stream. Life: construct, load_weight for every name of weight_names(),
// finish_loading, then encode.
class Encoder {
 public:
  // Throws kInvalidArgument for a config that is inconsistent, kUnsupported for one that needs what the backend lacks.
  Encoder(EncoderConfig config, EncoderOptions options, const Device& device, Stream& stream);
  ~Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  // Every canonical name, sorted; all begin with "vision.".
  std::vector<std::string> weight_names() const;
  // As Decoder::load_weight.
  void load_weight(const WeightSource& source);
  // Checks that nothing is missing and reserves activations and inputs for the largest call.
  void finish_loading();

  // Embeddings of the items one after another: activation dtype [sum of num_tokens, config().width()], valid until the
  // next call. The items are valid ones, of at most max_rows rows in all; their memory may go once the call returns.
  Tensor encode(std::span<const EncoderItem* const> items);

  size_t weight_bytes() const;
  // Device bytes of activations, inputs and workspace; valid after finish_loading().
  size_t activation_bytes() const;
  const EncoderConfig& config() const;
  const EncoderOptions& options() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbomind
