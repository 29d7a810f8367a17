// SPDX-License-Identifier: Apache-2.0
#include "engine/engine_fixture.h"

namespace turbomind::test {
namespace {

EngineOptions with(std::map<std::string, std::string> changes) {
  changes.emplace("tokens", "context");
  return null_options(std::move(changes));
}

// Ways of running steps that must not show in the answers.
const std::vector<std::map<std::string, std::string>> kModes = {
    {{"can_capture", "0"}},
    {{"can_capture", "1"}},
    {{"can_capture", "0"}, {"asynchronous", "1"}},
    {{"can_capture", "1"}, {"asynchronous", "1"}},
};

void expect_predicted(const Output& output, const std::vector<int32_t>& prompt, int64_t count) {
  EXPECT_TOKENS(output.token_ids, predict(prompt, count));
  EXPECT(output.finish_reason == FinishReason::kLength);
}

TEST(engine_answers_as_predicted) {
  for (const auto& mode : kModes) {
    EngineFixture fixture(with(mode));
    const std::vector<int32_t> prompt = make_prompt(10, 1);
    const Output output = fixture.generate(prompt, greedy(20));
    expect_predicted(output, prompt, 20);
    EXPECT_EQ(output.prompt_tokens, 10);
    EXPECT_EQ(output.cached_tokens, 0);
    EXPECT(output.times.arrival > 0 && output.times.arrival <= output.times.first_scheduled);
    EXPECT(output.times.first_scheduled <= output.times.first_token && output.times.first_token <= output.times.finish);
  }
}

TEST(engine_prefills_a_long_prompt_in_chunks) {
  EngineFixture fixture(with({}));
  const std::vector<int32_t> prompt = make_prompt(300, 2);
  expect_predicted(fixture.generate(prompt, greedy(40)), prompt, 40);
  // 300 tokens at 64 a step, then one step per further token.
  EXPECT_EQ(fixture.engine.stats().steps, 5 + 39);
}

TEST(engine_serves_many_at_once) {
  for (const auto& mode : kModes) {
    EngineFixture fixture(with(mode));
    std::map<uint64_t, std::vector<int32_t>> expected;
    for (uint32_t i = 0; i < 30; ++i) {
      const std::vector<int32_t> prompt = make_prompt(1 + i * 7, i);
      expected[fixture.engine.submit(prompt, greedy(5 + i))] = predict(prompt, 5 + i);
    }
    fixture.wait_finished(30);
    for (const auto& [id, tokens] : expected) EXPECT_TOKENS(fixture.result(id).token_ids, tokens);
  }
}

TEST(engine_replays_decode_steps) {
  EngineFixture fixture(with({{"can_capture", "1"}}));
  fixture.generate(make_prompt(20, 1), greedy(50));
  // The prompt's step and the first run of the size are not replays.
  EXPECT_EQ(fixture.engine.stats().graph_replays, 48);
  EngineFixture eager(with({{"can_capture", "0"}}));
  eager.generate(make_prompt(20, 1), greedy(50));
  EXPECT_EQ(eager.engine.stats().graph_replays, 0);
}

TEST(engine_shares_prefixes) {
  EngineFixture fixture(with({}));
  const std::vector<int32_t> prefix = make_prompt(150, 3);
  expect_predicted(fixture.generate(prefix, greedy(10)), prefix, 10);
  std::vector<int32_t> prompt = prefix;
  prompt.insert(prompt.end(), {1, 2, 3});
  const Output output = fixture.generate(prompt, greedy(10));
  expect_predicted(output, prompt, 10);
  // Nine full blocks and six tokens of the tenth.
  EXPECT_EQ(output.cached_tokens, 150);
  EXPECT_EQ(fixture.engine.stats().cached_tokens, 150);
}

TEST(engine_caches_generated_tokens) {
  EngineFixture fixture(with({}));
  std::vector<int32_t> history = make_prompt(20, 4);
  const Output first = fixture.generate(history, greedy(40));
  history.insert(history.end(), first.token_ids.begin(), first.token_ids.end());
  history.push_back(5);
  const Output second = fixture.generate(history, greedy(10));
  expect_predicted(second, history, 10);
  // All but the answer's last token, which was never computed.
  EXPECT_EQ(second.cached_tokens, 59);
}

TEST(engine_shares_a_prefix_that_is_still_being_computed) {
  EngineOptions options = with({});
  options.max_num_batched_tokens = 512;
  EngineFixture fixture(options);
  const std::vector<int32_t> prefix = make_prompt(160, 5);
  std::map<uint64_t, std::vector<int32_t>> expected;
  for (int32_t i = 0; i < 8; ++i) {
    std::vector<int32_t> prompt = prefix;
    prompt.push_back(i);
    expected[fixture.engine.submit(prompt, greedy(5))] = predict(prompt, 5);
  }
  fixture.wait_finished(8);
  for (const auto& [id, tokens] : expected) EXPECT_TOKENS(fixture.result(id).token_ids, tokens);
  EXPECT(fixture.engine.stats().computed_tokens < 160 + 8 * 20);
}

TEST(engine_does_not_share_between_tenants) {
  EngineFixture fixture(with({}));
  const std::vector<int32_t> prompt = make_prompt(100, 6);
  SamplingParams params = greedy(3);
  params.cache_salt = "a";
  fixture.generate(prompt, params);
  params.cache_salt = "b";
  EXPECT_EQ(fixture.generate(prompt, params).cached_tokens, 0);
  params.cache_salt = "a";
  EXPECT_EQ(fixture.generate(prompt, params).cached_tokens, 99);
}

TEST(engine_without_prefix_cache_computes_everything) {
  EngineOptions options = with({});
  options.enable_prefix_caching = false;
  EngineFixture fixture(options);
  const std::vector<int32_t> prompt = make_prompt(100, 6);
  fixture.generate(prompt, greedy(3));
  EXPECT_EQ(fixture.generate(prompt, greedy(3)).cached_tokens, 0);
}

TEST(engine_preempts_and_still_answers_right) {
  for (const auto& mode : kModes) {
    EngineOptions options = with(mode);
    options.num_kv_blocks = 12;
    EngineFixture fixture(options);
    std::map<uint64_t, std::vector<int32_t>> expected;
    for (uint32_t i = 0; i < 12; ++i) {
      const std::vector<int32_t> prompt = make_prompt(20 + i, 100 + i);
      expected[fixture.engine.submit(prompt, greedy(60))] = predict(prompt, 60);
    }
    fixture.wait_finished(12);
    for (const auto& [id, tokens] : expected) EXPECT_TOKENS(fixture.result(id).token_ids, tokens);
    const EngineStats stats = fixture.engine.stats();
    EXPECT(stats.preemptions > 0);
    EXPECT_EQ(stats.kv_blocks_used, 0);
    EXPECT_EQ(stats.requests_finished, 12);
  }
}

TEST(engine_answers_do_not_depend_on_chunk_or_batch_size) {
  const std::vector<int32_t> prompt = make_prompt(200, 7);
  for (const int32_t chunk : {8, 13, 64, 512}) {
    EngineOptions options = with({});
    options.max_num_batched_tokens = chunk;
    EngineFixture fixture(options);
    for (uint32_t i = 0; i < 5; ++i) fixture.engine.submit(make_prompt(30, i), greedy(30));
    const uint64_t id = fixture.engine.submit(prompt, greedy(30));
    fixture.wait_finished(6);
    EXPECT_TOKENS(fixture.result(id).token_ids, predict(prompt, 30));
  }
}

TEST(engine_samples_by_seed_and_position) {
  for (const auto& mode : kModes) {
    EngineFixture fixture(with(mode));
    const std::vector<int32_t> prompt = make_prompt(30, 8);
    SamplingParams params = greedy(20);
    params.temperature = 0.7F;
    params.seed = 12345;
    EXPECT_TOKENS(fixture.generate(prompt, params).token_ids, predict_sampled(prompt, 20, 12345));
  }
}

TEST(engine_draws_a_seed_where_none_is_given) {
  EngineFixture fixture(with({}));
  SamplingParams params = greedy(20);
  params.temperature = 1.0F;
  const Output a = fixture.generate(make_prompt(30, 8), params);
  const Output b = fixture.generate(make_prompt(30, 8), params);
  EXPECT(a.token_ids != b.token_ids);
}

TEST(engine_samples_n_sequences_from_one_prompt) {
  for (const auto& mode : kModes) {
    for (const bool caching : {true, false}) {
      EngineOptions options = with(mode);
      options.enable_prefix_caching = caching;
      EngineFixture fixture(options);
      const std::vector<int32_t> prompt = make_prompt(75, 9);
      SamplingParams params = greedy(40);
      params.temperature = 0.7F;
      params.seed = 50;
      params.n = 4;
      const uint64_t id = fixture.engine.submit(prompt, params);
      fixture.wait_finished(4);
      for (int32_t i = 0; i < 4; ++i) {
        const Output& output = fixture.result(id, i);
        EXPECT_TOKENS(output.token_ids, predict_sampled(prompt, 40, 50 + static_cast<uint64_t>(i)));
      }
      // The prompt once, then each sequence's tokens but the last.
      EXPECT_EQ(fixture.engine.stats().computed_tokens, 75 + 4 * 39);
    }
  }
}

TEST(engine_samples_n_sequences_under_preemption) {
  EngineOptions options = with({});
  options.num_kv_blocks = 10;
  EngineFixture fixture(options);
  const std::vector<int32_t> prompt = make_prompt(37, 9);
  SamplingParams params = greedy(60);
  params.temperature = 0.7F;
  params.seed = 50;
  params.n = 4;
  const uint64_t id = fixture.engine.submit(prompt, params);
  fixture.wait_finished(4);
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_TOKENS(fixture.result(id, i).token_ids, predict_sampled(prompt, 60, 50 + static_cast<uint64_t>(i)));
  }
  EXPECT(fixture.engine.stats().preemptions > 0);
}

TEST(stop_token_ends_a_sequence_and_is_not_returned) {
  for (const auto& mode : kModes) {
    EngineFixture fixture(with(mode));
    const std::vector<int32_t> prompt = make_prompt(30, 10);
    std::vector<int32_t> expected = predict(prompt, 10);
    SamplingParams params = greedy(50);
    params.stop_token_ids = {expected[6]};
    expected.resize(6);
    const Output output = fixture.generate(prompt, params);
    EXPECT_TOKENS(output.token_ids, expected);
    EXPECT(output.finish_reason == FinishReason::kStop);
    EXPECT_EQ(*output.stop_token_id, params.stop_token_ids[0]);
  }
}

TEST(eos_stops_unless_ignored) {
  EngineFixture fixture(with({}));
  const std::vector<int32_t> prompt = make_prompt(30, 11);
  SamplingParams params = greedy(10);
  params.eos_token_ids = {predict(prompt, 4).back()};
  EXPECT_EQ(fixture.generate(prompt, params).token_ids.size(), 3U);
  params.ignore_eos = true;
  EXPECT_EQ(fixture.generate(prompt, params).token_ids.size(), 10U);
}

TEST(minimum_defers_a_stop) {
  EngineFixture fixture(with({}));
  const std::vector<int32_t> prompt = make_prompt(30, 12);
  SamplingParams params = greedy(20);
  // The null plug-in draws it all the same; what counts is that it does not stop.
  params.stop_token_ids = {predict(prompt, 4).back()};
  params.min_new_tokens = 4;
  EXPECT_EQ(fixture.generate(prompt, params).token_ids.size(), 20U);
  params.min_new_tokens = 3;
  EXPECT_EQ(fixture.generate(prompt, params).token_ids.size(), 3U);
}

TEST(length_is_bounded_by_the_session) {
  EngineOptions options = with({});
  options.session_len = 100;
  EngineFixture fixture(options);
  const std::vector<int32_t> prompt = make_prompt(90, 13);
  expect_predicted(fixture.generate(prompt, greedy(50)), prompt, 10);
  EXPECT_ERROR(fixture.engine.submit(make_prompt(100, 1), greedy(1)), ErrorCode::kPromptTooLong, "at most 99 tokens");
}

TEST(length_is_bounded_by_the_kv_cache) {
  EngineOptions options = with({});
  options.num_kv_blocks = 4;
  EngineFixture fixture(options);
  EXPECT_EQ(fixture.plan.max_sequence_len, 64);
  const std::vector<int32_t> prompt = make_prompt(60, 13);
  expect_predicted(fixture.generate(prompt, greedy(50)), prompt, 4);
  EXPECT_ERROR(fixture.engine.submit(make_prompt(64, 1), greedy(1)), ErrorCode::kPromptTooLong, "KV cache");
  // Again, now with every block cached and a part of one to copy.
  expect_predicted(fixture.generate(prompt, greedy(50)), prompt, 4);
}

TEST(prompt_alone_can_be_computed) {
  EngineFixture fixture(with({}));
  SamplingParams params = greedy(0);
  params.output_logits = OutputRows::kAll;
  const Output output = fixture.generate(make_prompt(150, 14), params);
  EXPECT(output.token_ids.empty());
  EXPECT(output.finish_reason == FinishReason::kLength);
  EXPECT_EQ(output.logits.rows(), 150);
  EXPECT_EQ(output.logits.cols, kVocab);
}

TEST(prefixes_are_shared_only_where_their_keys_agree) {
  EngineFixture fixture(null_options());
  const std::vector<int32_t> prompt = make_prompt(100, 21);
  const auto cached = [&](std::vector<CacheKey> keys) {
    SamplingParams params = greedy(1);
    params.cache_keys = std::move(keys);
    return fixture.generate(prompt, params).cached_tokens;
  };
  EXPECT_EQ(cached({{40, 60, "cat"}}), 0);
  EXPECT_EQ(cached({{40, 60, "cat"}}), 99);
  // Equal tokens up to another picture, to none, or to one that begins elsewhere; a part of a block is shared, too.
  EXPECT_EQ(cached({{40, 60, "dog"}}), 40);
  EXPECT_EQ(cached({}), 40);
  EXPECT_EQ(cached({{44, 60, "cat"}}), 44);  // shares with the request without a key
  EXPECT_EQ(cached({{40, 50, "cat"}, {50, 60, "cat"}}), 50);
  EXPECT_EQ(cached({{90, 95, "end"}, {40, 60, "cat"}}), 90);
  // A key of the whole sequence, as an adapter is, and a picture under it.
  EXPECT_EQ(cached({{0, 1 << 30, "adapter"}}), 0);
  EXPECT_EQ(cached({{0, 1 << 30, "adapter"}}), 99);
  EXPECT_EQ(cached({{0, 1 << 30, "adapter"}, {40, 60, "cat"}}), 40);
  EXPECT_EQ(cached({{40, 60, "cat"}, {0, 1 << 30, "adapter"}}), 99);
}

TEST(memory_plan_says_whose_memory_it_is) {
  for (const char* accessible : {"0", "1"}) {
    EngineFixture fixture(with({{"host_accessible", accessible}}));
    EXPECT_EQ(fixture.plan.on_host, accessible == std::string("1"));
  }
}

TEST(memory_plan_is_explained) {
  EngineOptions options = with({{"memory_bytes", "33554432"}});
  options.num_kv_blocks = 0;
  EngineFixture fixture(options);
  EXPECT(fixture.plan.num_kv_blocks > 2);
  EXPECT_EQ(fixture.plan.kv_capacity, fixture.plan.num_kv_blocks * 16);
  EXPECT_EQ(fixture.plan.lines.back().name, "KV cache");
  const MemoryPlan::Line& sampling = fixture.plan.lines[fixture.plan.lines.size() - 2];
  EXPECT_EQ(sampling.name, "sampling");
  EXPECT(sampling.bytes >= uint64_t{8} * kVocab / 8);  // a bit per sequence and token
  EXPECT(fixture.plan.lines.back().bytes <= fixture.plan.device_free_bytes);
  EXPECT(fixture.plan.to_string().find("blocks of 16 tokens") != std::string::npos);
}

TEST(impossible_choices_are_refused) {
  const auto rejected = [](ErrorCode code, const char* part, auto change) {
    EngineOptions options = null_options();
    change(options);
    EXPECT_ERROR(Engine(null_model(), options), code, part);
  };
  rejected(ErrorCode::kUnsupported, "backend 'tpu'", [](auto& o) { o.backend = "tpu"; });
  rejected(ErrorCode::kInvalidArgument, "block_size: expected one of", [](auto& o) { o.block_size = 7; });
  rejected(ErrorCode::kInvalidArgument, "session_len: expected at most", [](auto& o) { o.session_len = 1000; });
  rejected(ErrorCode::kInvalidArgument, "max_num_seqs", [](auto& o) { o.max_num_seqs = 0; });
  rejected(ErrorCode::kInvalidArgument, "setting", [](auto& o) { o.backend_config["nonsense"] = "1"; });
}

TEST(engine_asks_for_missing_weights) {
  const NullBackend null(TM_PLUGIN_NULL);
  Engine engine(null_model(), null_options());
  EXPECT_ERROR(engine.start(), ErrorCode::kInvalidArgument, "embed_tokens");
  EXPECT_ERROR(engine.submit({1}, greedy(1)), ErrorCode::kInvalidArgument, "start()");
}

}  // namespace
}  // namespace turbomind::test
