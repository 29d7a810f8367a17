// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "support/test.h"
#include "turbomind/engine/options.h"
#include "turbomind/engine/request.h"

namespace turbomind::test {
namespace {

constexpr int32_t kVocab = 100;

template <class Change>
void expect_rejected(const char* part, Change change) {
  SamplingParams params;
  change(params);
  EXPECT_ERROR(validate(params, kVocab, 4), ErrorCode::kInvalidArgument, part);
}

TEST(default_parameters_are_valid) { validate(SamplingParams{}, kVocab, 4); }

TEST(bad_parameters_are_named) {
  const float nan = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  expect_rejected("max_new_tokens: expected at least 0, found -1", [](auto& p) { p.max_new_tokens = -1; });
  expect_rejected("min_new_tokens", [](auto& p) { p.min_new_tokens = 513; });
  expect_rejected("temperature", [](auto& p) { p.temperature = -0.5F; });
  expect_rejected("temperature", [&](auto& p) { p.temperature = nan; });
  expect_rejected("temperature", [&](auto& p) { p.temperature = infinity; });
  expect_rejected("top_k", [](auto& p) { p.top_k = -1; });
  expect_rejected("top_p", [](auto& p) { p.top_p = 0.0F; });
  expect_rejected("top_p", [&](auto& p) { p.top_p = nan; });
  expect_rejected("min_p", [](auto& p) { p.min_p = 1.5F; });
  expect_rejected("repetition_penalty", [](auto& p) { p.repetition_penalty = 0.0F; });
  expect_rejected("presence_penalty", [&](auto& p) { p.presence_penalty = nan; });
  expect_rejected("frequency_penalty", [&](auto& p) { p.frequency_penalty = infinity; });
  expect_rejected("logit_bias", [](auto& p) { p.logit_bias = {{kVocab, 1.0F}}; });
  expect_rejected("logit_bias", [&](auto& p) { p.logit_bias = {{1, infinity}}; });
  expect_rejected("bad_token_ids", [](auto& p) { p.bad_token_ids = {-1}; });
  expect_rejected("bad_token_sequences", [](auto& p) { p.bad_token_sequences = {{1, 2}, {3}}; });
  expect_rejected("bad_token_sequences", [](auto& p) { p.bad_token_sequences = {{1, -1}}; });
  expect_rejected("allowed_token_ids", [](auto& p) { p.allowed_token_ids = {kVocab}; });
  expect_rejected("allowed_token_ids", [](auto& p) {
    p.allowed_token_ids = {3};
    p.bad_token_ids = {3};
  });
  expect_rejected("allowed_token_ids: expected a token left", [&](auto& p) {
    p.allowed_token_ids = {3};
    p.logit_bias = {{3, -infinity}};
  });
  expect_rejected("allowed_token_ids: expected a token left", [](auto& p) {
    p.allowed_token_ids = {3, 4};
    p.bad_token_ids = {3};
    p.eos_token_ids = {4};
    p.min_new_tokens = 1;
  });
  // Both could be about to end at once.
  expect_rejected("allowed_token_ids: expected a token left", [](auto& p) {
    p.allowed_token_ids = {3, 4};
    p.bad_token_sequences = {{3, 3}, {1, 3, 4}};
  });
  expect_rejected("stop_token_ids", [](auto& p) { p.stop_token_ids = {kVocab}; });
  expect_rejected("eos_token_ids", [](auto& p) { p.eos_token_ids = {-2}; });
  expect_rejected("n: expected a value in [1, max_num_seqs = 4], found 5", [](auto& p) { p.n = 5; });
  expect_rejected("n:", [](auto& p) { p.n = 0; });
  expect_rejected("logprobs: expected a value in [-1, 100], found 101", [](auto& p) { p.logprobs = 101; });
  expect_rejected("prompt_logprobs", [](auto& p) { p.prompt_logprobs = -2; });
  expect_rejected("timeout", [](auto& p) { p.timeout = -1.0; });
  expect_rejected("cache_keys: expected positions with 0 <= begin < end, found 3 .. 3",
                  [](auto& p) { p.cache_keys = {{3, 3, "k"}}; });
  expect_rejected("cache_keys", [](auto& p) { p.cache_keys = {{-1, 3, "k"}}; });
  expect_rejected("cache_keys: expected a key", [](auto& p) { p.cache_keys = {{0, 3, ""}}; });
}

TEST(every_draw_has_a_token_to_take) {
  std::vector<int32_t> all(kVocab);
  std::iota(all.begin(), all.end(), 0);
  expect_rejected("bad_token_ids: expected a token left", [&](auto& p) { p.bad_token_ids = all; });
  expect_rejected("bad_token_sequences: expected a token left", [&](auto& p) {
    for (const int32_t token : all) p.bad_token_sequences.push_back({7, token});
  });
  expect_rejected("logit_bias: expected a token left", [&](auto& p) {
    for (const int32_t token : all) p.logit_bias[token] = -std::numeric_limits<float>::infinity();
  });
  expect_rejected("min_new_tokens: expected a token left", [&](auto& p) {
    p.stop_token_ids = all;
    p.min_new_tokens = 1;
  });
  // A token that ends the answer may be the only one, unless tokens must come before it.
  SamplingParams params;
  params.allowed_token_ids = params.eos_token_ids = {4};
  validate(params, kVocab, 4);
  params.min_new_tokens = 1;
  params.ignore_eos = true;
  validate(params, kVocab, 4);
  // Nothing is drawn where only the prompt is computed.
  params = {};
  params.bad_token_ids = all;
  params.max_new_tokens = 0;
  validate(params, kVocab, 4);
}

TEST(bad_prompts_are_refused) {
  EXPECT_ERROR(validate_prompt({}, kVocab, 10), ErrorCode::kInvalidArgument, "prompt_token_ids");
  EXPECT_ERROR(validate_prompt({5, kVocab}, kVocab, 10), ErrorCode::kInvalidArgument, "[0, 100), found 100");
  EXPECT_ERROR(validate_prompt({1, 2, 3}, kVocab, 3), ErrorCode::kPromptTooLong, "at most 2 tokens");
  validate_prompt({1, 2}, kVocab, 3);
}

TEST(bad_options_are_named) {
  const auto rejected = [](const char* part, auto change) {
    EngineOptions options;
    change(options);
    EXPECT_ERROR(validate(options), ErrorCode::kInvalidArgument, part);
  };
  validate(EngineOptions{});
  rejected("tp", [](auto& o) { o.tp = 0; });
  rejected("dtype: expected one of auto, float32, bfloat16, float16, found 'int8'", [](auto& o) { o.dtype = "int8"; });
  rejected("compute_dtype", [](auto& o) { o.compute_dtype = "bfloat16"; });
  rejected("kv_cache_dtype", [](auto& o) { o.kv_cache_dtype = "int4"; });
  rejected("max_num_batched_tokens", [](auto& o) { o.max_num_batched_tokens = o.max_num_seqs - 1; });
  rejected("cache_memory_fraction", [](auto& o) { o.cache_memory_fraction = 1.5; });
  rejected("cache_memory_fraction", [](auto& o) { o.cache_memory_fraction = std::nan(""); });
  rejected("max_queue_size", [](auto& o) { o.max_queue_size = 0; });
}

TEST(output_rows_are_words) {
  EXPECT(parse_output_rows("output_logits", "all") == OutputRows::kAll);
  EXPECT_ERROR(parse_output_rows("output_logits", "some"), ErrorCode::kInvalidArgument, "output_logits");
}

TEST(merged_outputs_append) {
  Output first;
  first.token_ids = {1, 2};
  first.logits = {2, {1.0F, 2.0F}};
  Output second;
  second.token_ids = {3};
  second.logits = {2, {3.0F, 4.0F}};
  second.finished = true;
  second.finish_reason = FinishReason::kStop;
  first.merge(std::move(second));
  EXPECT_EQ(first.token_ids.size(), 3U);
  EXPECT_EQ(first.logits.rows(), 2);
  EXPECT(first.finished && first.finish_reason == FinishReason::kStop);
}

}  // namespace
}  // namespace turbomind::test
