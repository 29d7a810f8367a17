// SPDX-License-Identifier: Apache-2.0
//
// The engine on each plug-in that computes, against the double-precision reference: what it draws, what it reports, and
// that nothing around a request changes its answer.
#include <cmath>

#include "engine/engine_numbers.h"

namespace turbomind::test {
namespace {

double log_sum_exp(const Row& row) {
  const double most = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const double value : row) sum += std::exp(value - most);
  return most + std::log(sum);
}

TEST(greedy_tokens_are_the_reference_s_likeliest) {
  for (const TinyModel& model : {tiny_llama(), tiny_qwen2(), tiny_gemma3(), tiny_llama(MatrixFormats::kMixed)}) {
    Fixture fixture(model);
    const std::vector<int32_t> prompt = random_tokens(model.config, 90, 1);
    const Output output = fixture.generate(prompt, greedy(20));
    EXPECT_EQ(output.token_ids.size(), 20U);
    const Rows logits = reference_logits(model, joined(prompt, output.token_ids));
    for (size_t i = 0; i < 20; ++i) expect_largest(logits[prompt.size() - 1 + i], output.token_ids[i]);
  }
}

TEST(reported_rows_match_the_reference) {
  const TinyModel model = tiny_qwen3();
  Fixture fixture(model);
  const std::vector<int32_t> prompt = random_tokens(model.config, 70, 2);
  SamplingParams params = greedy(6);
  params.logprobs = 3;
  params.prompt_logprobs = 0;
  params.output_logits = OutputRows::kAll;
  params.output_last_hidden_state = OutputRows::kAll;
  const Output output = fixture.generate(prompt, params);
  const std::vector<int32_t> tokens = joined(prompt, output.token_ids);
  const ReferenceDecoder reference(model.config, model.reference);
  const Rows hidden = reference.hidden(tokens);
  const Rows logits = reference.logits(hidden);
  EXPECT_EQ(output.logits.rows(), 75);
  EXPECT_EQ(output.last_hidden_state.rows(), 75);
  for (size_t row = 0; row < 75; ++row) {
    const float* found_logits = output.logits.values.data() + row * logits[row].size();
    const float* found_hidden = output.last_hidden_state.values.data() + row * hidden[row].size();
    for (size_t i = 0; i < logits[row].size(); ++i) EXPECT_NEAR(found_logits[i], logits[row][i], 2e-3);
    for (size_t i = 0; i < hidden[row].size(); ++i) EXPECT_NEAR(found_hidden[i], hidden[row][i], 2e-3);
    const PositionLogprobs& reported = row < 69 ? output.prompt_logprobs[row] : output.logprobs[row - 69];
    EXPECT_EQ(reported.token.token_id, tokens[row + 1]);
    const double expected = logits[row][static_cast<size_t>(tokens[row + 1])] - log_sum_exp(logits[row]);
    EXPECT_NEAR(reported.token.logprob, expected, 2e-3);
    if (row >= 69) EXPECT_EQ(reported.top.size(), 3U);
  }
}

void expect_processed(const TinyModel& model, Fixture& fixture, const SamplingParams& params) {
  const std::vector<int32_t> prompt = random_tokens(model.config, 40, 3);
  const Output output = fixture.generate(prompt, params);
  const Rows logits = reference_logits(model, joined(prompt, output.token_ids));
  for (size_t i = 0; i < output.token_ids.size(); ++i) {
    const std::vector<int32_t> generated(output.token_ids.begin(),
                                         output.token_ids.begin() + static_cast<std::ptrdiff_t>(i));
    expect_largest(processed(logits[prompt.size() - 1 + i], params, prompt, generated), output.token_ids[i]);
    if (params.logprobs < 0) continue;
    // Logprobs are of the logits as the model gave them.
    const Row& raw = logits[prompt.size() - 1 + i];
    const double expected = raw[static_cast<size_t>(output.token_ids[i])] - log_sum_exp(raw);
    EXPECT_NEAR(output.logprobs[i].token.logprob, expected, 2e-3);
  }
  EXPECT_EQ(output.token_ids.size(), 24U);
}

TEST(every_sampling_parameter_changes_the_logits_as_defined) {
  const TinyModel model = tiny_llama();
  Fixture fixture(model);
  SamplingParams params = greedy(24);
  expect_processed(model, fixture, params);
  params.logprobs = 1;
  params.repetition_penalty = 1.6F;
  expect_processed(model, fixture, params);
  params.presence_penalty = 0.8F;
  params.frequency_penalty = 0.5F;
  expect_processed(model, fixture, params);
  params.logit_bias = {{5, 3.0F}, {6, -2.0F}};
  params.bad_token_ids = {5, 9, 10};
  expect_processed(model, fixture, params);
  params.allowed_token_ids = {4, 5, 6, 7, 8, 9, 33, 34, 35, 64, 65, 95};
  params.stop_token_ids = {6, 7, 8, 33, 34};
  params.min_new_tokens = 24;
  expect_processed(model, fixture, params);
}

// The likeliest answer's own pairs and triples are forbidden, again and again, beside other rules.
TEST(bad_sequences_of_tokens_are_not_drawn_to_their_end) {
  const TinyModel model = tiny_llama();
  Fixture fixture(model);
  SamplingParams params = greedy(24);
  const std::vector<int32_t> prompt = random_tokens(model.config, 40, 3);
  for (size_t length = 2; length < 5; ++length) {
    for (size_t i = 0; i < 6; ++i) {
      const std::vector<int32_t> tokens = fixture.generate(prompt, params).token_ids;
      const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(3 * i);
      const std::vector<int32_t> bad(begin, begin + static_cast<std::ptrdiff_t>(length));
      params.bad_token_sequences.push_back(bad);
      expect_processed(model, fixture, params);
      const std::vector<int32_t> changed = fixture.generate(prompt, params).token_ids;
      EXPECT(std::search(changed.begin(), changed.end(), bad.begin(), bad.end()) == changed.end());
    }
  }
  params.logprobs = 2;
  params.repetition_penalty = 1.3F;
  params.allowed_token_ids = {4, 5, 6, 7, 8, 9, 33, 34, 35, 64, 65, 95};
  params.bad_token_sequences.push_back({4, 5});
  params.bad_token_sequences.push_back({5, 4});
  expect_processed(model, fixture, params);
  // What the prompt holds does not count.
  params = greedy(2);
  const int32_t first = fixture.generate(prompt, params).token_ids[0];
  params.bad_token_sequences = {{prompt.back(), first}};
  EXPECT_EQ(fixture.generate(prompt, params).token_ids[0], first);
}

SamplingParams sampled(uint64_t seed) {
  SamplingParams params = greedy(40);
  params.temperature = 1.1F;
  params.top_p = 0.95F;
  params.repetition_penalty = 1.1F;
  params.seed = seed;
  return params;
}

// Runs the request among others on an engine of its own.
std::vector<int32_t> answer(const TinyModel& model, const EngineOptions& options, const std::vector<int32_t>& prompt,
                            uint32_t num_others, bool warm = false) {
  Fixture fixture(model, options);
  if (warm) fixture.generate({prompt.begin(), prompt.begin() + 75}, greedy(3));
  for (uint32_t i = 0; i < num_others / 2; ++i) {
    fixture.engine.submit(random_tokens(model.config, 5 + i * 3, 50 + i), sampled(i));
  }
  const uint64_t id = fixture.engine.submit(prompt, sampled(77));
  for (uint32_t i = num_others / 2; i < num_others; ++i) {
    fixture.engine.submit(random_tokens(model.config, 5 + i * 3, 50 + i), sampled(i));
  }
  fixture.wait_finished(num_others + 1 + warm);
  return fixture.result(id).token_ids;
}

TEST(nothing_around_a_request_changes_its_answer) {
  for (const char* compute : {"auto", "float32"}) {
    const TinyModel model = tiny_gemma3();
    EngineOptions options = exact_options();
    options.compute_dtype = options.kv_cache_dtype = compute;
    const std::vector<int32_t> prompt = random_tokens(model.config, 100, 4);
    const std::vector<int32_t> alone = answer(model, options, prompt, 0);
    EXPECT_EQ(alone.size(), 40U);
    EXPECT_TOKENS(answer(model, options, prompt, 31), alone);
    EXPECT_TOKENS(answer(model, options, prompt, 0, true), alone);
    EngineOptions changed = options;
    changed.num_threads = 1;
    EXPECT_TOKENS(answer(model, changed, prompt, 3), alone);
    changed = options;
    changed.max_num_batched_tokens = 33;
    EXPECT_TOKENS(answer(model, changed, prompt, 7), alone);
    changed = options;
    changed.enable_prefix_caching = false;
    EXPECT_TOKENS(answer(model, changed, prompt, 7), alone);
    changed = options;
    const int32_t block_size = Fixture(model, options).plan.block_size;
    changed.num_kv_blocks = (160 + block_size - 1) / block_size;
    EXPECT_TOKENS(answer(model, changed, prompt, 15), alone);
  }
}

}  // namespace
}  // namespace turbomind::test
