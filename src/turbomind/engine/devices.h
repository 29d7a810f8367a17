// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>

#include "turbomind/engine/options.h"
#include "turbomind/engine/rank_group.h"
#include "turbomind/models/decoder.h"
#include "turbomind/models/text_encoder.h"

namespace turbomind {

// Attempts to open a lost device again, without a step in between that worked.
inline constexpr int kMaxDeviceRecoveries = 3;
inline constexpr std::chrono::milliseconds kDeviceRecoveryPause(200);

// The options that a backend and a model have settled.
struct ResolvedOptions {
  DecoderOptions decoder;
  EncoderOptions encoder;
  EncoderBudget encoder_budget;  // zero for a model that takes no pictures
  int64_t session_len;
  int32_t ranks;
};

// Loads the plug-ins, chooses the backend and opens a device per rank. Throws kUnsupported where there is none.
std::unique_ptr<RankGroup> open_ranks(const EngineOptions& options);

// Fills every "auto". Throws kInvalidArgument or kUnsupported for a choice that the device or the model does not allow.
// encoder: null for a model that takes no pictures.
ResolvedOptions resolve_options(const EngineOptions& options, const DecoderConfig& model, const EncoderConfig* encoder,
                                const Device& device);

// The same for an encoder. Throws as resolve_options.
TextEncoderOptions resolve_options(const EngineOptions& options, const TextEncoderConfig& model, const Device& device);

}  // namespace turbomind
