// SPDX-License-Identifier: Apache-2.0
//
// Many random requests at once: whatever the schedule, each answer is the predicted one.
#include <atomic>
#include <random>
#include <thread>

#include "engine/engine_fixture.h"

namespace turbomind::test {
namespace {

struct Case {
  std::vector<int32_t> prompt;
  SamplingParams params;
};

// Prompts that share prefixes of every length, sampled and greedy, some with several sequences, stops and rows.
Case random_case(std::mt19937& random) {
  const auto below = [&](uint32_t limit) { return random() % limit; };
  Case result;
  result.prompt = make_prompt(1 + below(180), below(5));
  const std::vector<int32_t> tail = make_prompt(below(30), random());
  result.prompt.insert(result.prompt.end(), tail.begin(), tail.end());
  result.params = greedy(1 + below(40));
  if (below(2)) result.params.temperature = 0.8F;
  result.params.seed = random();
  if (below(6) == 0) result.params.n = static_cast<int32_t>(2 + below(3));
  if (below(4) == 0) result.params.stop_token_ids = {static_cast<int32_t>(below(kVocab))};
  if (below(4) == 0) result.params.priority = static_cast<int32_t>(below(3));
  if (below(5) == 0) result.params.cache_salt = "tenant";
  if (below(7) == 0) result.params.repetition_penalty = 1.1F;
  if (below(7) == 0) result.params.logprobs = static_cast<int32_t>(below(3));
  if (below(11) == 0) result.params.prompt_logprobs = 1;
  if (below(13) == 0) result.params.output_last_hidden_state = OutputRows::kAll;
  return result;
}

void expect_answer(const Case& request, const Output& output, int32_t index) {
  const SamplingParams& params = request.params;
  const uint64_t seed = *params.seed + static_cast<uint64_t>(index);
  std::vector<int32_t> expected = params.temperature > 0.0F
                                      ? predict_sampled(request.prompt, params.max_new_tokens, seed)
                                      : predict(request.prompt, params.max_new_tokens);
  bool stopped = false;
  for (size_t i = 0; i < expected.size() && !params.stop_token_ids.empty(); ++i) {
    if (expected[i] != params.stop_token_ids[0]) continue;
    expected.resize(i);
    stopped = true;
  }
  EXPECT_TOKENS(output.token_ids, expected);
  EXPECT(output.finish_reason == (stopped ? FinishReason::kStop : FinishReason::kLength));
  EXPECT_EQ(output.logprobs.size(), params.logprobs >= 0 ? expected.size() : 0U);
  const bool prompt_logprobs = params.prompt_logprobs >= 0 && index == 0;
  EXPECT_EQ(output.prompt_logprobs.size(), prompt_logprobs ? request.prompt.size() - 1 : 0U);
}

void soak(const std::map<std::string, std::string>& mode, uint32_t count) {
  EngineOptions options = null_options(mode);
  options.num_kv_blocks = 24;
  options.max_queue_size = 2000;
  EngineFixture fixture(options);
  std::mt19937 random(2024);
  std::map<uint64_t, Case> cases;
  size_t sequences = 0;
  for (uint32_t i = 0; i < count; ++i) {
    Case request = random_case(random);
    const uint64_t id = fixture.engine.submit(request.prompt, request.params);
    sequences += static_cast<size_t>(request.params.n);
    cases.emplace(id, std::move(request));
    if (i % 16 == 0) fixture.collect(std::chrono::milliseconds(0));
  }
  fixture.wait_finished(sequences);
  for (const auto& [id, request] : cases) {
    for (int32_t i = 0; i < request.params.n; ++i) expect_answer(request, fixture.result(id, i), i);
  }
  const EngineStats stats = fixture.engine.stats();
  EXPECT(stats.preemptions > 0);
  EXPECT(stats.cached_tokens > 0);
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.requests_finished, static_cast<int64_t>(count));
}

TEST(random_requests_get_predicted_answers) { soak({{"tokens", "context"}, {"can_capture", "0"}}, 1000); }

TEST(random_requests_get_predicted_answers_replayed_and_looking_ahead) {
  soak({{"tokens", "context"}, {"can_capture", "1"}, {"asynchronous", "1"}}, 1000);
}

TEST(random_requests_survive_faults) {
  EngineOptions options = null_options({{"tokens", "context"}, {"asynchronous", "1"}});
  options.num_kv_blocks = 24;
  EngineFixture fixture(options);
  std::mt19937 random(7);
  for (int64_t i = 1; i < 20; ++i) fixture.null.fail("attention", i * 23, TM_DEVICE_ERROR);
  std::map<uint64_t, Case> cases;
  size_t sequences = 0;
  for (int i = 0; i < 300; ++i) {
    Case request = random_case(random);
    const uint64_t id = fixture.engine.submit(request.prompt, request.params);
    sequences += static_cast<size_t>(request.params.n);
    cases.emplace(id, std::move(request));
  }
  fixture.wait_finished(sequences);
  int64_t failed = 0;
  for (const auto& [id, request] : cases) {
    for (int32_t i = 0; i < request.params.n; ++i) {
      const Output& output = fixture.result(id, i);
      if (output.finish_reason == FinishReason::kError) {
        ++failed;
      } else {
        expect_answer(request, output, i);
      }
    }
  }
  EXPECT(failed > 0);
  EXPECT(failed < static_cast<int64_t>(sequences));
  EXPECT_EQ(fixture.engine.stats().kv_blocks_used, 0);
}

// Callers on several threads submit, cancel, poll and look at the statistics.
TEST(cancellation_storm_leaves_nothing_behind) {
  EngineOptions options = null_options({{"tokens", "context"}, {"asynchronous", "1"}});
  options.num_kv_blocks = 32;
  EngineFixture fixture(options);
  std::atomic<size_t> expected{0};
  std::vector<std::thread> callers;
  for (uint32_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      std::mt19937 random(caller);
      for (int i = 0; i < 100; ++i) {
        const Case request = random_case(random);
        const uint64_t id = fixture.engine.submit(request.prompt, request.params);
        expected += static_cast<size_t>(request.params.n);
        if (random() % 3 == 0) std::this_thread::yield();
        if (random() % 3 != 0) fixture.engine.cancel(id - random() % 4);
        fixture.engine.stats();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  fixture.wait_finished(expected);
  const EngineStats stats = fixture.engine.stats();
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT(stats.requests_cancelled > 0);
  EXPECT_EQ(stats.requests_cancelled + stats.requests_finished, 400);
  const std::vector<int32_t> prompt = make_prompt(100, 1);
  EXPECT_TOKENS(fixture.generate(prompt, greedy(20)).token_ids, predict(prompt, 20));
}

}  // namespace
}  // namespace turbomind::test
