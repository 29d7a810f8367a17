// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "turbomind/core/tensor.h"
#include "turbomind/layers/layer_context.h"
#include "turbomind/layers/weight_source.h"
#include "turbomind/models/decoder_config.h"
#include "turbomind/ops/ops.h"

namespace turbomind {

struct DecoderOptions {
  tm_dtype activation_dtype = TM_F32;
  tm_compute compute = TM_COMPUTE_DEFAULT;
  bool int8_weights = false;  // see WeightStore
  tm_dtype kv_dtype = TM_F32;
  int32_t kv_block_size = 0;    // tokens
  int64_t max_tokens = 0;       // rows of one step
  int64_t max_seqs = 0;         // sequences of one step
  int64_t max_logits_rows = 0;  // rows of one compute_logits
  int64_t max_context = 0;      // positions the rope tables cover
};

// Inputs of one forward pass on one rank; all tensors lie on the device. A captured step reads them again at each
// replay, so for that their addresses stay fixed between steps.
struct StepInput {
  Tensor token_ids;            // i32 [T], T <= max_tokens
  Tensor positions;            // i32 [T]; [3, T] for models whose ropes have axes (time, height, width)
  const Plan* plan = nullptr;  // from make_plan(), updated for this step
  // Pictures, optional: activation dtype [M, H * (1 + num_deepstack)]: rows that replace token embeddings, and behind
  // them what is added to the outputs of the first layers.
  Tensor embeddings;
  Tensor embedding_rows;  // i32 [M]: their rows in [0, T), distinct
  // The hidden states that are wanted, not given for all T; the plan is from make_wanted_plan(). The last layer writes
  // the keys and values of all T and computes nothing else of the others.
  std::optional<WantedRows> wanted;

  // With more wanted rows than this all are computed: picking them out would hardly pay.
  static constexpr int64_t most_wanted(int64_t num_tokens) { return num_tokens / 2; }
};

// A decoder-only transformer on one device rank: weights, activations, KV pools and the walk over its layers. Used by
// the thread that owns the stream. Life: construct, load_weight for every name of weight_names(), finish_loading,
// allocate_kv, then steps.
//
// Tensor parallelism (Shoeybi et al. 2019, arXiv:1909.08053): each rank has a Decoder with its own Comm, loads the same
// whole weights (each takes its slice) and runs the same steps.
class Decoder {
 public:
  // comm: null for one rank. Throws kInvalidArgument for a config that is inconsistent or cannot be split over the
  // ranks, kUnsupported for one that needs what the backend lacks.
  Decoder(DecoderConfig config, DecoderOptions options, const Device& device, Stream& stream, Comm* comm = nullptr);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Every canonical name the model needs, sorted.
  std::vector<std::string> weight_names() const;
  // Packs one canonical weight. Throws kInvalidArgument naming the weight, what was expected and what was found, for an
  // unknown or repeated name, a wrong shape or size, or a format that cannot be cut where a rank's slice begins.
  void load_weight(const WeightSource& source);
  // Checks that nothing is missing and reserves activations and workspace for the largest step.
  void finish_loading();

  // Makes the workspace large enough for further ops that share it; measure issues the largest of them on ops that only
  // measure. Returns by how many bytes it grew. After finish_loading().
  size_t reserve_workspace(const std::function<void(Ops&)>& measure);

  // A plan for steps of this decoder, within its options.
  Plan make_plan() const;
  // One for the wanted rows of its steps, at most max_seqs.
  Plan make_wanted_plan() const;

  // Device bytes of packed weights (without what they borrow from their sources) and rope tables.
  size_t weight_bytes() const;
  // Device bytes of activations, logits and what finish_loading() made of workspace.
  size_t activation_bytes() const;
  // Device bytes of the KV pools of all layers for num_blocks.
  size_t kv_pool_bytes(int64_t num_blocks) const;
  // Replaces the pools; their contents are zero then. Throws kOutOfMemory and leaves none.
  void allocate_kv(int64_t num_blocks);

  // Runs all layers over the step; returns the hidden states after the final norm, activation dtype [T, H], valid until
  // the next call. Steps of equal T put them at the same address. Rows that are not wanted are undefined.
  Tensor forward(const StepInput& input);
  // logits[i] = lm_head(hidden[rows[i]]), f32 [R, vocab] in a buffer valid until the next call; R <= max_logits_rows.
  // rows: i32 [R]. With several ranks each one gets all logits.
  Tensor compute_logits(const Tensor& hidden, const Tensor& rows);
  // pairs: host [num_pairs, 2], source and destination block, applied to every layer.
  void copy_kv_blocks(const int32_t* pairs, int64_t num_pairs);

  const DecoderConfig& config() const;
  const DecoderOptions& options() const;
  Ops& ops();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbomind
