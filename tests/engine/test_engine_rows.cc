// SPDX-License-Identifier: Apache-2.0
//
// Logprobs, logits and hidden states: which rows come back, how often, in what order.
#include "engine/engine_fixture.h"

namespace turbomind::test {
namespace {

SamplingParams with_everything(int64_t max_new_tokens) {
  SamplingParams params = greedy(max_new_tokens);
  params.logprobs = 2;
  params.prompt_logprobs = 3;
  params.output_logits = OutputRows::kAll;
  params.output_last_hidden_state = OutputRows::kAll;
  return params;
}

void expect_everything(const Output& output, const std::vector<int32_t>& prompt, int64_t count) {
  EXPECT_TOKENS(output.token_ids, predict(prompt, count));
  const auto length = static_cast<int64_t>(prompt.size());
  EXPECT_EQ(output.logits.rows(), length + count - 1);
  EXPECT_EQ(output.last_hidden_state.rows(), length + count - 1);
  EXPECT_EQ(output.last_hidden_state.cols, 8);
  EXPECT_EQ(output.logprobs.size(), static_cast<size_t>(count));
  EXPECT_EQ(output.prompt_logprobs.size(), prompt.size() - 1);
  for (size_t i = 0; i < output.prompt_logprobs.size(); ++i) {
    EXPECT_EQ(output.prompt_logprobs[i].token.token_id, prompt[i + 1]);
    EXPECT_EQ(output.prompt_logprobs[i].top.size(), 3U);
  }
  for (size_t i = 0; i < output.logprobs.size(); ++i) {
    EXPECT_EQ(output.logprobs[i].token.token_id, output.token_ids[i]);
    EXPECT_EQ(output.logprobs[i].top.size(), 2U);
  }
}

// The null plug-in's hidden rows carry one number that depends on the whole prefix, so equal rows mean equal positions.
void expect_same_rows(const RowBlock& a, const RowBlock& b) {
  EXPECT_EQ(a.rows(), b.rows());
  for (int64_t i = 0; i < std::min(a.rows(), b.rows()); ++i) {
    EXPECT_EQ(a.values[static_cast<size_t>(i * a.cols)], b.values[static_cast<size_t>(i * b.cols)]);
  }
}

TEST(every_row_comes_once) {
  for (const char* asynchronous : {"0", "1"}) {
    EngineFixture fixture(null_options({{"tokens", "context"}, {"asynchronous", asynchronous}}));
    const std::vector<int32_t> prompt = make_prompt(150, 1);
    expect_everything(fixture.generate(prompt, with_everything(10)), prompt, 10);
    // The cache may not swallow rows of a request that wants them all.
    const Output again = fixture.generate(prompt, with_everything(10));
    expect_everything(again, prompt, 10);
    EXPECT_EQ(again.cached_tokens, 0);
  }
}

TEST(rows_come_once_under_preemption) {
  EngineOptions options = null_options();
  options.num_kv_blocks = 12;
  EngineFixture fixture(options);
  std::map<uint64_t, std::vector<int32_t>> prompts;
  for (uint32_t i = 0; i < 6; ++i) {
    const std::vector<int32_t> prompt = make_prompt(40 + i, i);
    prompts[fixture.engine.submit(prompt, with_everything(50))] = prompt;
  }
  fixture.wait_finished(6);
  EXPECT(fixture.engine.stats().preemptions > 0);
  for (const auto& [id, prompt] : prompts) expect_everything(fixture.result(id), prompt, 50);
}

TEST(rows_do_not_depend_on_chunks) {
  const std::vector<int32_t> prompt = make_prompt(150, 2);
  EngineFixture fixture(null_options());
  const Output first = fixture.generate(prompt, with_everything(5));
  for (const int32_t chunk : {8, 17, 256}) {
    EngineOptions options = null_options();
    options.max_num_batched_tokens = chunk;
    EngineFixture other(options);
    const Output output = other.generate(prompt, with_everything(5));
    expect_same_rows(first.last_hidden_state, output.last_hidden_state);
    expect_same_rows(first.logits, output.logits);
  }
}

TEST(generation_rows_are_one_per_token) {
  EngineFixture fixture(null_options());
  const std::vector<int32_t> prompt = make_prompt(70, 3);
  SamplingParams params = greedy(10);
  params.output_logits = OutputRows::kGeneration;
  params.output_last_hidden_state = OutputRows::kGeneration;
  const Output output = fixture.generate(prompt, params);
  EXPECT_EQ(output.logits.rows(), 10);
  EXPECT_EQ(output.last_hidden_state.rows(), 10);
  EXPECT(output.prompt_logprobs.empty());
  const Output all = fixture.generate(prompt, with_everything(10));
  RowBlock tail{all.logits.cols, {all.logits.values.begin() + 69 * kVocab, all.logits.values.end()}};
  expect_same_rows(output.logits, tail);
}

TEST(token_that_stops_has_no_row) {
  EngineFixture fixture(null_options());
  const std::vector<int32_t> prompt = make_prompt(70, 3);
  SamplingParams params = with_everything(10);
  params.stop_token_ids = {predict(prompt, 5).back()};
  const Output output = fixture.generate(prompt, params);
  EXPECT_EQ(output.token_ids.size(), 4U);
  EXPECT_EQ(output.logprobs.size(), 4U);
  EXPECT_EQ(output.logits.rows(), 70 + 4 - 1);
}

TEST(each_of_n_sequences_has_its_rows) {
  EngineFixture fixture(null_options());
  const std::vector<int32_t> prompt = make_prompt(70, 4);
  SamplingParams params = with_everything(10);
  params.n = 3;
  const uint64_t id = fixture.engine.submit(prompt, params);
  fixture.wait_finished(3);
  expect_everything(fixture.result(id), prompt, 10);
  for (const int32_t index : {1, 2}) {
    const Output& output = fixture.result(id, index);
    EXPECT_EQ(output.logits.rows(), 10);
    EXPECT_EQ(output.logprobs.size(), 10U);
    EXPECT(output.prompt_logprobs.empty());
  }
}

TEST(rows_of_different_wishes_share_a_step) {
  EngineFixture fixture(null_options());
  std::vector<std::pair<uint64_t, std::vector<int32_t>>> requests;
  for (uint32_t i = 0; i < 8; ++i) {
    const std::vector<int32_t> prompt = make_prompt(20 + i, i);
    SamplingParams params = greedy(30);
    if (i % 2) params.logprobs = static_cast<int32_t>(i);
    if (i % 4 >= 2) params.repetition_penalty = 1.2F;
    // All but token 0, which the null plug-in never gives to a row with a mask.
    for (int32_t token = 1; i == 5 && token < kVocab; ++token) params.allowed_token_ids.push_back(token);
    if (i == 6) params.output_logits = OutputRows::kGeneration;
    requests.emplace_back(fixture.engine.submit(prompt, params), prompt);
  }
  fixture.wait_finished(8);
  for (size_t i = 0; i < requests.size(); ++i) {
    const Output& output = fixture.result(requests[i].first);
    EXPECT_TOKENS(output.token_ids, predict(requests[i].second, 30));
    EXPECT_EQ(output.logprobs.size(), i % 2 ? 30U : 0U);
    if (i % 2) EXPECT_EQ(output.logprobs[0].top.size(), i);
    EXPECT_EQ(output.logits.rows(), i == 6 ? 30 : 0);
  }
  // Three of eight rows have their logits processed in each step; steps without any skip the call.
  EXPECT(fixture.null.count("logits_process") > 0);
}

TEST(logits_are_not_processed_where_nobody_asks) {
  EngineFixture fixture(null_options());
  SamplingParams params = greedy(10);
  params.temperature = 0.5F;
  params.top_k = 3;
  fixture.generate(make_prompt(20, 1), params);
  EXPECT_EQ(fixture.null.count("logits_process"), 0);
  params.eos_token_ids = {3};
  params.min_new_tokens = 4;
  fixture.generate(make_prompt(20, 1), params);
  // Only while the end is forbidden.
  EXPECT_EQ(fixture.null.count("logits_process"), 4);
}

}  // namespace
}  // namespace turbomind::test
