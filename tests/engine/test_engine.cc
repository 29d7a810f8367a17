// SPDX-License-Identifier: Apache-2.0
#include "engine_fixture.h"

namespace turbomind::test {
namespace {

TEST(engine_answers_as_predicted) {
  EngineFixture fixture(null_options());
  const std::vector<int32_t> prompt = make_prompt(10, 1);
  const Output output = fixture.generate(prompt, greedy(20));
  EXPECT_TOKENS(output.token_ids, predict(prompt, 20));
  EXPECT(output.finish_reason == FinishReason::kLength);
  EXPECT_EQ(output.prompt_tokens, 10);
}

TEST(engine_prefills_a_long_prompt_in_chunks) {
  EngineFixture fixture(null_options());
  const std::vector<int32_t> prompt = make_prompt(300, 2);
  const Output output = fixture.generate(prompt, greedy(40));
  EXPECT_TOKENS(output.token_ids, predict(prompt, 40));
  // 300 tokens at 64 a step, then one step per further token.
  EXPECT_EQ(fixture.engine.stats().steps, 5 + 39);
}

TEST(engine_serves_many_at_once) {
  EngineFixture fixture(null_options());
  std::map<uint64_t, std::vector<int32_t>> expected;
  for (uint32_t i = 0; i < 30; ++i) {
    const std::vector<int32_t> prompt = make_prompt(1 + i * 7, i);
    expected[fixture.engine.submit(prompt, greedy(5 + i))] = predict(prompt, 5 + i);
  }
  fixture.wait_finished(30);
  for (const auto& [id, tokens] : expected) EXPECT_TOKENS((fixture.results[{id, 0}].token_ids), tokens);
}

}  // namespace
}  // namespace turbomind::test
