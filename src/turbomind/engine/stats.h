// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace turbomind {

// Steps by the tokens that they computed: how many took at most so many, and more than the edge before.
class StepSizes {
 public:
  static constexpr std::array<int64_t, 13> kEdges = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

  void count(int64_t tokens) {
    const auto edge = std::lower_bound(kEdges.begin(), kEdges.end(), tokens);
    ++counts_[static_cast<size_t>(edge - kEdges.begin())];
  }
  // The last is of what is above all edges.
  const std::array<int64_t, kEdges.size() + 1>& counts() const { return counts_; }

 private:
  std::array<int64_t, kEdges.size() + 1> counts_ = {};
};

// Times by their length: how many took at most so many seconds, and more than the edge before.
class SecondsHistogram {
 public:
  static constexpr std::array<double, 21> kEdges = {.001, .002, .005, .01, .02, .05, .1,  .2,  .5,   1,   2,
                                                    5,    10,   20,   30,  60,  120, 300, 600, 1200, 1800};

  void count(double seconds) {
    const auto edge = std::lower_bound(kEdges.begin(), kEdges.end(), seconds);
    ++counts_[static_cast<size_t>(edge - kEdges.begin())];
    sum_ += seconds;
  }
  SecondsHistogram& operator+=(const SecondsHistogram& other) {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    sum_ += other.sum_;
    return *this;
  }
  // The last is of what is above all edges.
  const std::array<int64_t, kEdges.size() + 1>& counts() const { return counts_; }
  double sum() const { return sum_; }

 private:
  std::array<int64_t, kEdges.size() + 1> counts_ = {};
  double sum_ = 0.0;
};

// How long the prefix cache keeps KV blocks, seen each time one is evicted or taken into use again.
struct BlockAges {
  SecondsHistogram lifetime;  // of a block that is evicted, since it was allocated
  SecondsHistogram idle;      // of a block that is evicted, since nobody used it
  SecondsHistogram reuse;     // of a block that is used again, since nobody did

  BlockAges& operator+=(const BlockAges& other) {
    lifetime += other.lifetime;
    idle += other.idle;
    reuse += other.reuse;
    return *this;
  }
};

// A consistent picture of the engine between two steps. Counters run since start().
struct EngineStats {
  int64_t running = 0;  // sequences that hold KV blocks
  int64_t waiting = 0;  // sequences that hold none: not scheduled yet, or preempted
  int64_t kv_blocks_total = 0;
  int64_t kv_blocks_used = 0;    // held by sequences
  int64_t kv_blocks_cached = 0;  // held by the prefix cache alone, free to be taken
  int64_t requests_finished = 0;
  int64_t requests_failed = 0;
  int64_t requests_cancelled = 0;
  int64_t prompt_tokens = 0;  // of sequences admitted, preempted ones counted once
  int64_t cached_tokens = 0;  // of those, taken from the prefix cache
  int64_t generated_tokens = 0;
  int64_t computed_tokens = 0;  // token rows run through the model
  int64_t preemptions = 0;
  int64_t media_encoded = 0;        // pictures, tiles and slices that the encoder ran for
  int64_t media_tokens_cached = 0;  // embeddings of pictures on the device
  int64_t steps = 0;
  StepSizes step_sizes;
  BlockAges block_ages;
  int64_t failed_steps = 0;
  int64_t graph_replays = 0;      // of steps
  int64_t device_recoveries = 0;  // lost devices opened again
  double schedule_seconds = 0.0;  // sums over all steps: choosing the step and building its batch
  double execute_seconds = 0.0;   // issuing it and waiting for its tokens
  double wait_seconds = 0.0;      // of these, waiting: the others are what a step costs the host
  double output_seconds = 0.0;    // stop conditions and outputs
  double guide_seconds = 0.0;     // masks of guided draws, less what was done while the forward pass was issued
};

// Where the device memory of one rank goes, in the order it was taken.
struct MemoryPlan {
  struct Line {
    std::string name;
    uint64_t bytes = 0;
    std::string detail;
  };
  std::vector<Line> lines;
  bool on_host = false;            // the device's memory is the host's own
  uint64_t device_free_bytes = 0;  // before the KV cache was taken
  int64_t num_kv_blocks = 0;
  int32_t block_size = 0;        // tokens
  int64_t kv_capacity = 0;       // tokens
  int64_t max_sequence_len = 0;  // tokens: session_len, or less where the KV cache is smaller

  // One line of text per entry, for logs.
  std::string to_string() const;
};

}  // namespace turbomind
