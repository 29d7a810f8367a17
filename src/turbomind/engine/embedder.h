// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "turbomind/engine/options.h"
#include "turbomind/models/text_encoder.h"

namespace turbomind {

struct EmbedderMemory {
  size_t weight_bytes;
  size_t activation_bytes;
  bool on_host;  // the device's memory is the host's own
};

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
  EmbedderMemory start();

  // rows: host [texts.size(), hidden_size], written in the order of the texts, which are computed in as few steps as
  // max_tokens allows. Throws kInvalidArgument for an empty text or an id outside the vocabulary, kPromptTooLong,
  // before anything is computed; and what the device reports, after which the next call finds a device that works, or,
  // where a lost one could not be opened again, throws its kDeviceLost.
  void embed(const std::vector<std::vector<int32_t>>& texts, float* rows);

  int64_t max_text_len() const;
  int64_t max_tokens() const;  // of one step
  const TextEncoderConfig& config() const;
  int64_t num_recoveries() const;  // lost devices that were opened again with their weights
  bool is_lost() const;            // for good: every embed() throws

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbomind
