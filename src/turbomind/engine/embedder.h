// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "turbomind/engine/options.h"
#include "turbomind/models/text_encoder.h"

namespace turbomind {

// Serves one encoder. Construct, load every weight, start(); from then on embed() may be called from any thread. Errors
// are turbomind::Error.
class Embedder {
 public:
  // Opens the device. Throws kInvalidArgument (options), kUnsupported (backend, model on this backend). Of the options,
  // those of the KV cache and of sampling mean nothing here; tp must be 1.
  Embedder(TextEncoderConfig model, const EngineOptions& options);
  ~Embedder();
  Embedder(const Embedder&) = delete;
  Embedder& operator=(const Embedder&) = delete;

  // Its bytes must stay valid while the embedder lives.
  void load_weight(const WeightSource& source);
  // Throws kInvalidArgument if weights are missing, kOutOfMemory.
  void start();

  // rows: host [texts.size(), hidden_size], written in the order of the texts, which are computed in as few steps as
  // max_tokens allows. Throws kInvalidArgument for an empty text or an id outside the vocabulary, kPromptTooLong,
  // before anything is computed.
  void embed(const std::vector<std::vector<int32_t>>& texts, float* rows);

  int64_t max_text_len() const;
  int64_t max_tokens() const;  // of one step
  size_t weight_bytes() const;
  size_t activation_bytes() const;
  const TextEncoderConfig& config() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbomind
