// SPDX-License-Identifier: Apache-2.0
//
// What the engine promises to many callers at once, on a plug-in that computes: preemption, the prefix cache,
// cancellation at any moment and a mix of all of them. TM_SOAK_SECONDS makes the last one long.
#include <cstdlib>
#include <random>

#include "engine/engine_numbers.h"

namespace turbomind::test {
namespace {

using Tokens = std::vector<int32_t>;

// A cache of so many tokens for all requests together.
EngineOptions small_cache(const TinyModel& model, int64_t tokens) {
  EngineOptions options = exact_options();
  const int32_t block_size = Fixture(model, options).plan.block_size;
  options.num_kv_blocks = (tokens + block_size - 1) / block_size;
  return options;
}

// Every block came back.
void expect_idle(const Engine& engine) {
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_EQ(stats.failed_steps, 0);
}

TEST(preempted_requests_answer_as_if_alone) {
  const TinyModel model = tiny_llama();
  constexpr uint32_t kRequests = 12;
  std::vector<Tokens> alone;
  for (uint32_t i = 0; i < kRequests; ++i) {
    alone.push_back(Fixture(model).generate(random_tokens(model.config, 60 + i, i), greedy(90)).token_ids);
  }
  Fixture fixture(model, small_cache(model, 640));
  std::vector<uint64_t> ids;
  for (uint32_t i = 0; i < kRequests; ++i) {
    ids.push_back(fixture.engine.submit(random_tokens(model.config, 60 + i, i), greedy(90)));
  }
  fixture.wait_finished(kRequests);
  for (uint32_t i = 0; i < kRequests; ++i) EXPECT_TOKENS(fixture.result(ids[i]).token_ids, alone[i]);
  EXPECT(fixture.engine.stats().preemptions > 0);
  expect_idle(fixture.engine);
}

TEST(a_shared_prefix_is_computed_once) {
  const TinyModel model = tiny_llama();
  const Tokens prefix = random_tokens(model.config, 128, 1);
  const Tokens question = joined(prefix, random_tokens(model.config, 20, 2));
  const Tokens cold = Fixture(model).generate(question, greedy(12)).token_ids;
  Fixture fixture(model);
  fixture.generate(joined(prefix, random_tokens(model.config, 9, 3)), greedy(4));
  const Output warm = fixture.generate(question, greedy(12));
  EXPECT_TOKENS(warm.token_ids, cold);
  EXPECT_EQ(warm.cached_tokens, 128);
}

TEST(cancelled_requests_leave_the_others_alone) {
  const TinyModel model = tiny_llama();
  const Tokens kept_prompt = random_tokens(model.config, 40, 100);
  const Tokens alone = Fixture(model).generate(kept_prompt, greedy(80)).token_ids;
  Fixture fixture(model, small_cache(model, 900));
  const uint64_t kept = fixture.engine.submit(kept_prompt, greedy(80));
  std::vector<uint64_t> dropped;
  for (uint32_t i = 0; i < 40; ++i) {
    dropped.push_back(fixture.engine.submit(random_tokens(model.config, 10 + 3 * i, i), greedy(200)));
    if (i >= 3) fixture.engine.cancel(dropped[i - 3]);
    if (i % 4 == 0) fixture.collect(std::chrono::milliseconds(2));
  }
  for (const uint64_t id : dropped) fixture.engine.cancel(id);
  fixture.wait_finished(1 + dropped.size());
  EXPECT_TOKENS(fixture.result(kept).token_ids, alone);
  expect_idle(fixture.engine);
}

TEST(more_blocks_than_memory_is_a_typed_error) {
  const TinyModel model = tiny_llama();
  EngineOptions options = exact_options();
  options.num_kv_blocks = int64_t{1} << 30;
  EXPECT_ERROR(Fixture(model, options), ErrorCode::kOutOfMemory, "num_kv_blocks");
}

// A request of a soak and the answer that it has to give; empty: it is cancelled and may give less.
struct Expected {
  uint64_t id;
  Tokens tokens;
};

TEST(a_soak_loses_no_request_and_no_block) {
  const TinyModel model = tiny_llama();
  const char* setting = std::getenv("TM_SOAK_SECONDS");
  const std::chrono::duration<double> length(setting ? std::atof(setting) : 0.5);
  constexpr uint32_t kKinds = 16;
  std::vector<Tokens> prompts;
  std::vector<Tokens> answers;
  for (uint32_t kind = 0; kind < kKinds; ++kind) {
    prompts.push_back(
        joined(random_tokens(model.config, 64 * (kind % 3), 7), random_tokens(model.config, 4 + kind * 5, kind)));
    answers.push_back(Fixture(model).generate(prompts.back(), greedy(30)).token_ids);
  }
  Fixture fixture(model, small_cache(model, 1400));
  std::mt19937 random(5);
  std::vector<Expected> requests;
  const auto end = std::chrono::steady_clock::now() + length;
  while (std::chrono::steady_clock::now() < end) {
    const uint32_t kind = random() % kKinds;
    const bool stays = random() % 4 != 0;
    const uint64_t id = fixture.engine.submit(prompts[kind], greedy(30));
    requests.push_back({id, stays ? answers[kind] : Tokens{}});
    if (!stays) fixture.engine.cancel(id);
    while (requests.size() > fixture.num_finished + 48) fixture.collect();
  }
  fixture.wait_finished(requests.size());
  for (const Expected& request : requests) {
    if (!request.tokens.empty()) EXPECT_TOKENS(fixture.result(request.id).token_ids, request.tokens);
  }
  EXPECT_EQ(fixture.engine.stats().requests_failed, 0);
  expect_idle(fixture.engine);
}

}  // namespace
}  // namespace turbomind::test
