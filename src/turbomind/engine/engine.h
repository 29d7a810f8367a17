// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "turbomind/engine/media.h"
#include "turbomind/engine/options.h"
#include "turbomind/engine/request.h"
#include "turbomind/engine/stats.h"
#include "turbomind/models/decoder.h"

namespace turbomind {

// Serves one model. Construct, load every weight, start(); from then on submit, cancel, poll and stats may be called
// from any thread. One engine thread plans and runs the steps; callers meet it only in queues. Errors are
// turbomind::Error.
class Engine {
 public:
  // What happens to unfinished requests.
  enum class StopMode {
    kCancel,  // they end as cancelled, or with an error where ranks wait in vain for one another
    kDrain,   // they are served to their end
  };

  // Opens the devices. Throws kInvalidArgument (options), kUnsupported (backend, model on this backend).
  // vision: of a model that takes pictures.
  Engine(DecoderConfig model, EngineOptions options, std::optional<EncoderConfig> vision = std::nullopt);
  // Stops with kCancel.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Packs one weight on every rank. Its bytes must stay valid while the engine lives.
  void load_weight(const WeightSource& source);
  // Sizes the KV cache and starts serving. Throws kInvalidArgument if weights are missing, kOutOfMemory if no KV cache
  // of useful size fits.
  MemoryPlan start();

  // Returns the request's id (never 0). Throws kInvalidArgument, kPromptTooLong, kQueueFull, kDeviceLost, or kCancelled
  // after stop().
  // media: pictures in place of some of the prompt's tokens.
  uint64_t submit(std::vector<int32_t> prompt_token_ids, SamplingParams params, MediaInput media = {});
  // Each unfinished sequence of the request ends as cancelled, unless it ends otherwise first. Unknown ids are ignored.
  void cancel(uint64_t request_id);
  // Everything new since the last call, at most one output per sequence; waits up to timeout for the first. Empty on
  // timeout, and at once after stop() when nothing is left.
  std::vector<Output> poll(std::chrono::milliseconds timeout);
  // Readable while outputs are queued: one wake-up per step. Owned by the engine.
  int event_fd() const;
  int32_t vocab_size() const;
  EngineStats stats() const;
  // Idempotent; returns when the engine thread has ended. Outputs queued before stay available to poll().
  void stop(StopMode mode = StopMode::kCancel);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbomind
