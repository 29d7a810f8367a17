// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "abi/tm_backend.h"
#include "models/decoder_config.h"

namespace turbomind {

class Device;
class Stream;
class Comm;
class Ops;
class Plan;

// One source tensor of a checkpoint, as Python hands it over. The bytes must stay mapped while the decoder lives.
struct WeightSource {
  std::string name;  // canonical, e.g. "layers.0.q_proj"
  tm_weight_format format = TM_WEIGHT_F32;
  int64_t rows = 0;  // a vector has cols == 1
  int64_t cols = 0;
  const void* data = nullptr;
  size_t bytes = 0;
  int shard_axis = -1;  // tensor parallelism: 0 rows, 1 columns, -1 every rank holds all
};

struct DecoderOptions {
  tm_dtype activation_dtype = TM_F32;
  tm_compute compute = TM_COMPUTE_DEFAULT;
  tm_kv_spec kv;           // head counts are filled per layer by the decoder
  int64_t max_tokens = 0;  // rows of one step
  int64_t max_seqs = 0;    // sequences of one step
  int64_t max_logits_rows = 0;
  int64_t max_context = 0;  // positions the rope tables cover
  int rank = 0;
  int world_size = 1;
};

// Inputs of one forward pass on one rank; all tensors live on the device at addresses fixed between steps.
struct StepInput {
  tm_tensor token_ids;  // i32 [T]
  tm_tensor positions;  // i32 [T] or [3, T]
  const Plan* plan = nullptr;
  tm_tensor embeddings;      // float [M, H], optional: rows that replace token embeddings (pictures)
  tm_tensor embedding_rows;  // i32 [M]: their rows in [0, T)
};

// A decoder-only transformer on one device rank: weights, activations, KV pools and the walk over its layers.
class Decoder {
 public:
  Decoder(DecoderConfig config, DecoderOptions options, Device& device, Stream& stream, Comm* comm);
  ~Decoder();

  // Packs one canonical weight. Throws Error naming the weight on an unknown name, wrong shape or unusable format.
  void load_weight(const WeightSource& source);
  // Checks that nothing is missing and builds rope tables and activation buffers.
  void finish_loading();

  size_t weight_bytes() const;
  size_t activation_bytes() const;  // with workspaces; valid after finish_loading()
  // Device bytes of the KV pools of all layers for num_blocks.
  size_t kv_pool_bytes(int64_t num_blocks) const;
  void allocate_kv(int64_t num_blocks);

  // Runs all layers over the step; returns the final-norm hidden states, float [T, H], valid until the next call.
  tm_tensor forward(const StepInput& input);
  // logits[i] = lm_head(hidden[rows[i]]), f32 [R, vocab] in a buffer valid until the next call; R <= max_logits_rows.
  tm_tensor compute_logits(const tm_tensor& hidden, const tm_tensor& rows);
  // pairs: host [n, 2], source and destination block, applied to every layer.
  void copy_kv_blocks(const int32_t* pairs, int64_t num_pairs);

  const DecoderConfig& config() const;
  Ops& ops();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbomind
