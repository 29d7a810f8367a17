// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/reference_decoder.h"
#include "turbomind/layers/weight_source.h"
#include "turbomind/models/decoder_config.h"

namespace turbomind::test {

// How a tiny model stores its matrices. kMixed: formats that differ from weight to weight, as in GGUF files, so that
// some of q/k/v are neighbours of one format and some are not.
enum class MatrixFormats { kF32, kMixed };

// A decoder of a few thousand random weights with its checkpoint, and the same weights as doubles.
struct TinyModel {
  std::string name;
  DecoderConfig config;
  std::vector<WeightSource> checkpoint;
  ReferenceWeights reference;
};

TinyModel tiny_llama(MatrixFormats formats = MatrixFormats::kF32);  // tied embeddings, grouped queries
TinyModel tiny_qwen2();                                             // q/k/v biases, own lm_head, odd vocabulary
TinyModel tiny_qwen3();                                             // q/k norms
TinyModel tiny_gemma3();  // sandwich norms, sliding windows, two ropes, one kv head, scaled embeddings
// What no family above has: every bias, capped scores, a partial interleaved rope that also scales.
TinyModel tiny_medley();

// Token ids below the model's vocabulary, the same for the same seed.
std::vector<int32_t> random_tokens(const DecoderConfig& config, int64_t count, uint64_t seed);

}  // namespace turbomind::test
