// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "support/test.h"
#include "turbomind/engine/engine.h"

namespace turbomind::test {

inline SamplingParams greedy(int64_t max_new_tokens) {
  SamplingParams params;
  params.max_new_tokens = max_new_tokens;
  return params;
}

// A started engine whose outputs are collected per sequence.
class EngineDriver {
 public:
  using Key = std::pair<uint64_t, int32_t>;  // request, index

  EngineDriver(const DecoderConfig& model, const EngineOptions& options, const std::vector<WeightSource>& checkpoint)
      : engine(model, options) {
    for (const WeightSource& source : checkpoint) engine.load_weight(source);
    plan = engine.start();
  }

  // Polls until so many sequences have finished since construction; gives up after a while.
  void wait_finished(size_t count) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (num_finished < count && std::chrono::steady_clock::now() < deadline) collect();
    EXPECT_EQ(num_finished, count);
  }

  void collect(std::chrono::milliseconds timeout = std::chrono::milliseconds(50)) {
    for (Output& output : engine.poll(timeout)) {
      num_finished += output.finished;
      const auto [place, inserted] = results.try_emplace({output.request_id, output.index}, Output{});
      if (inserted) {
        place->second = std::move(output);
      } else {
        EXPECT(!place->second.finished);
        place->second.merge(std::move(output));
      }
    }
  }

  // The answer to one request that nothing else runs beside.
  Output generate(std::vector<int32_t> prompt, SamplingParams params) {
    const auto n = static_cast<size_t>(params.n);
    const uint64_t id = engine.submit(std::move(prompt), std::move(params));
    wait_finished(num_finished + n);
    return result(id);
  }

  // What has come of one sequence.
  Output& result(uint64_t id, int32_t index = 0) { return results[{id, index}]; }

  Engine engine;
  MemoryPlan plan;
  std::map<Key, Output> results;
  size_t num_finished = 0;
};

inline std::string to_text(const std::vector<int32_t>& tokens) {
  std::string text;
  for (const int32_t token : tokens) text += std::to_string(token) + " ";
  return text;
}

}  // namespace turbomind::test

#define EXPECT_TOKENS(found, expected) \
  EXPECT_EQ(::turbomind::test::to_text(found), ::turbomind::test::to_text(expected))
