// SPDX-License-Identifier: Apache-2.0
//
// Draws restricted by a guide: under look-ahead, preemption, prefix hits, n > 1, rows and logprobs, with refused
// tokens.
#include <atomic>
#include <set>
#include <thread>

#include "engine/engine_fixture.h"

namespace turbomind::test {
namespace {

constexpr int32_t kEnd = 996;

// What the guide allows after so many tokens: odd tokens, from the eleventh on also kEnd.
bool allowed(int32_t token, int64_t count) { return token == kEnd ? count > 10 : token % 2 == 1; }
// Some it takes back; then the next odd token comes instead.
bool refused(int32_t token) { return token % 3 == 0; }
int32_t instead(int32_t token) { return (token + 2) % 996; }

class OddGuide : public TokenGuide {
 public:
  std::unique_ptr<TokenGuide> clone() const override { return std::make_unique<OddGuide>(*this); }
  int64_t draws_to_end() const override { return std::max<int64_t>(12 - count_, 1); }

  void fill_mask(std::span<uint32_t> mask) override {
    if (num_masks) num_masks->fetch_add(1);
    if (throws_at >= 0 && count_ == throws_at) throw Error(ErrorCode::kUnsupported, "guide: gave up");
    for (int32_t v = 0; v < kVocab; ++v) {
      const bool set = forced_ >= 0 ? v == forced_ : allowed(v, count_);
      mask[static_cast<size_t>(v) / 32] |= uint32_t{set} << v % 32;
    }
  }

  bool accept(int32_t token, int64_t draws_left) override {
    EXPECT(forced_ >= 0 ? token == forced_ : allowed(token, count_));
    EXPECT(token != kEnd);
    draws_left_.insert(draws_left);
    if (forced_ < 0 && refused(token)) {
      forced_ = instead(token);
      return false;
    }
    forced_ = -1;
    ++count_;
    return true;
  }

  int64_t throws_at = -1;
  std::atomic<int64_t>* num_masks = nullptr;  // counts the masks of all clones

 private:
  int64_t count_ = 0;
  int32_t forced_ = -1;
  std::set<int64_t> draws_left_;
};

SamplingParams guided(int64_t max_new_tokens) {
  SamplingParams params = greedy(max_new_tokens);
  params.guide = std::make_shared<OddGuide>();
  params.eos_token_ids = {kEnd};
  return params;
}

// The first token from `token` on that the guide allows.
int32_t restrict_to_guide(int32_t token, int64_t count) {
  while (token == 0 || !allowed(token, count)) token = (token + 1) % kVocab;
  return refused(token) && token != kEnd ? instead(token) : token;
}

std::vector<int32_t> predict_guided(const std::vector<int32_t>& prompt, int64_t count, const uint64_t* seed = nullptr) {
  Prediction prediction(prompt);
  std::vector<int32_t> tokens;
  while (static_cast<int64_t>(tokens.size()) < count) {
    const int32_t next = seed ? prediction.next(*seed) : prediction.next();
    const int32_t token = restrict_to_guide(next, static_cast<int64_t>(tokens.size()));
    if (token == kEnd) break;
    tokens.push_back(token);
    prediction.append(token);
  }
  return tokens;
}

EngineOptions with(const char* asynchronous, const char* can_capture) {
  return null_options({{"tokens", "context"}, {"asynchronous", asynchronous}, {"can_capture", can_capture}});
}

TEST(a_guide_restricts_every_draw) {
  for (const char* asynchronous : {"0", "1"}) {
    for (const char* can_capture : {"0", "1"}) {
      EngineFixture fixture(with(asynchronous, can_capture));
      std::map<uint64_t, std::vector<int32_t>> expected;
      for (uint32_t i = 0; i < 24; ++i) {
        const std::vector<int32_t> prompt = make_prompt(1 + i * 9, i);
        // Two of three are guided: the others may not notice.
        if (i % 3 == 0) {
          expected[fixture.engine.submit(prompt, greedy(30))] = predict(prompt, 30);
        } else {
          expected[fixture.engine.submit(prompt, guided(30))] = predict_guided(prompt, 30);
        }
      }
      fixture.wait_finished(24);
      for (const auto& [id, tokens] : expected) EXPECT_TOKENS(fixture.result(id).token_ids, tokens);
    }
  }
}

TEST(masks_are_computed_while_the_forward_pass_runs) {
  for (const char* asynchronous : {"0", "1"}) {
    EngineOptions options = with(asynchronous, "0");
    options.num_threads = 2;  // one of them beside the engine's
    EngineFixture fixture(options);
    std::atomic<int64_t> num_masks{0};
    auto guide = std::make_shared<OddGuide>();
    guide->num_masks = &num_masks;
    SamplingParams params = guided(20);
    params.guide = guide;
    const std::vector<int32_t> prompt = make_prompt(40, 6);
    fixture.null.hold("attention");
    const uint64_t id = fixture.engine.submit(prompt, params);
    // The forward pass stands still in its attention until the mask of its draw has been asked for.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (num_masks == 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    EXPECT_EQ(num_masks.load(), 1);
    EXPECT_EQ(fixture.null.count("attention"), 0);
    fixture.null.release();
    fixture.wait_finished(1);
    EXPECT_TOKENS(fixture.result(id).token_ids, predict_guided(prompt, 20));
  }
}

TEST(a_step_that_fails_while_masks_are_computed_leaves_nothing_behind) {
  for (const char* asynchronous : {"0", "1"}) {
    EngineFixture fixture(with(asynchronous, "0"));
    const std::vector<int32_t> prompt = make_prompt(20, 4);
    for (int round = 0; round < 20; ++round) {
      fixture.null.fail("attention", 3, TM_DEVICE_ERROR);
      std::vector<uint64_t> ids;
      for (int i = 0; i < 6; ++i) ids.push_back(fixture.engine.submit(prompt, guided(20)));
      fixture.wait_finished(static_cast<size_t>(6 * (round + 1)));
      for (const uint64_t id : ids) {
        const Output& output = fixture.result(id);
        if (output.finish_reason != FinishReason::kError) EXPECT_TOKENS(output.token_ids, predict_guided(prompt, 20));
      }
    }
    EXPECT(fixture.engine.stats().failed_steps == 20);
    EXPECT_TOKENS(fixture.generate(prompt, guided(20)).token_ids, predict_guided(prompt, 20));
  }
}

TEST(guided_sequences_of_a_request_have_states_of_their_own) {
  for (const char* asynchronous : {"0", "1"}) {
    EngineFixture fixture(with(asynchronous, "0"));
    const std::vector<int32_t> prompt = make_prompt(33, 5);
    SamplingParams params = guided(25);
    params.n = 4;
    params.temperature = 1.0F;
    params.seed = 77;
    const uint64_t id = fixture.engine.submit(prompt, params);
    fixture.wait_finished(4);
    for (int32_t i = 0; i < 4; ++i) {
      const uint64_t seed = 77 + static_cast<uint64_t>(i);
      EXPECT_TOKENS(fixture.result(id, i).token_ids, predict_guided(prompt, 25, &seed));
    }
  }
}

TEST(guided_answers_do_not_depend_on_preemption_or_prefix_hits) {
  for (const char* asynchronous : {"0", "1"}) {
    EngineOptions options = with(asynchronous, "0");
    options.num_kv_blocks = 9;  // any two that run together outgrow it, whenever they came
    EngineFixture fixture(options);
    std::map<uint64_t, std::vector<int32_t>> expected;
    for (uint32_t i = 0; i < 20; ++i) {
      const std::vector<int32_t> prompt = make_prompt(40 + i % 4, i % 5);
      expected[fixture.engine.submit(prompt, guided(60))] = predict_guided(prompt, 60);
    }
    fixture.wait_finished(20);
    for (const auto& [id, tokens] : expected) EXPECT_TOKENS(fixture.result(id).token_ids, tokens);
    EXPECT(fixture.engine.stats().preemptions > 0);
    const std::vector<int32_t> prompt = make_prompt(40, 1);
    fixture.generate(prompt, greedy(1));
    const Output again = fixture.generate(prompt, guided(60));
    EXPECT_TOKENS(again.token_ids, predict_guided(prompt, 60));
    EXPECT(again.cached_tokens > 0);
  }
}

TEST(a_refused_token_leaves_no_row_behind) {
  for (const char* asynchronous : {"0", "1"}) {
    EngineFixture fixture(with(asynchronous, "0"));
    const std::vector<int32_t> prompt = make_prompt(70, 3);
    SamplingParams params = guided(20);
    params.logprobs = 2;
    params.output_logits = OutputRows::kAll;
    const Output output = fixture.generate(prompt, params);
    const std::vector<int32_t> expected = predict_guided(prompt, 20);
    EXPECT_TOKENS(output.token_ids, expected);
    EXPECT_EQ(output.logits.rows(), static_cast<int64_t>(prompt.size() + expected.size()) - 1);
    EXPECT_EQ(output.logprobs.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(output.logprobs[i].token.token_id, expected[i]);
    EXPECT_EQ(fixture.engine.stats().generated_tokens, static_cast<int64_t>(expected.size()) + (expected.size() < 20));
  }
}

TEST(a_token_that_is_left_alone_is_not_drawn_again) {
  const std::vector<int32_t> prompt = make_prompt(70, 3);
  const std::vector<int32_t> expected = predict_guided(prompt, 20);
  const int64_t least = static_cast<int64_t>(prompt.size() + expected.size()) - (expected.size() == 20);
  for (const int32_t logprobs : {-1, 0}) {
    EngineFixture fixture(with("0", "0"));
    SamplingParams params = guided(20);
    params.logprobs = logprobs;
    params.output_logits = OutputRows::kAll;
    const Output output = fixture.generate(prompt, params);
    EXPECT_TOKENS(output.token_ids, expected);
    EXPECT_EQ(output.logits.rows(), static_cast<int64_t>(prompt.size() + expected.size()) - 1);
    // Its logprobs only a draw can tell.
    EXPECT(logprobs < 0 ? fixture.engine.stats().computed_tokens == least
                        : fixture.engine.stats().computed_tokens > least);
  }
}

TEST(a_guide_that_throws_ends_its_sequence_alone) {
  for (const char* asynchronous : {"0", "1"}) {
    EngineFixture fixture(with(asynchronous, "0"));
    auto guide = std::make_shared<OddGuide>();
    guide->throws_at = 4;
    SamplingParams params = guided(20);
    params.guide = guide;
    const std::vector<int32_t> prompt = make_prompt(12, 8);
    const uint64_t bad = fixture.engine.submit(prompt, params);
    const uint64_t good = fixture.engine.submit(prompt, guided(20));
    fixture.wait_finished(2);
    EXPECT(fixture.result(bad).error_code == ErrorCode::kUnsupported);
    EXPECT_EQ(fixture.result(bad).error_message, "guide: gave up");
    EXPECT_TOKENS(fixture.result(good).token_ids, predict_guided(prompt, 20));
  }
}

using Sequences = std::vector<std::vector<int32_t>>;

// Whether `token` would end one of the sequences behind the tokens.
bool ends_one(const Sequences& sequences, std::vector<int32_t> tokens, int32_t token) {
  tokens.push_back(token);
  return std::any_of(sequences.begin(), sequences.end(), [&](const std::vector<int32_t>& bad) {
    return tokens.size() >= bad.size() && std::equal(bad.rbegin(), bad.rend(), tokens.rbegin());
  });
}

std::vector<int32_t> predict_without(const std::vector<int32_t>& prompt, int64_t count, const Sequences& bad) {
  Prediction prediction(prompt);
  std::vector<int32_t> tokens;
  while (static_cast<int64_t>(tokens.size()) < count) {
    int32_t token = prediction.next();
    while (token == 0 || ends_one(bad, tokens, token)) token = (token + 1) % kVocab;
    tokens.push_back(token);
    prediction.append(token);
  }
  return tokens;
}

// Which needs the token before, though steps are issued ahead of it; in two of three requests, that give way to others.
TEST(bad_sequences_of_tokens_are_kept_under_look_ahead_and_preemption) {
  for (const char* asynchronous : {"0", "1"}) {
    EngineOptions options = with(asynchronous, "1");
    options.num_kv_blocks = 24;
    EngineFixture fixture(options);
    std::map<uint64_t, std::vector<int32_t>> expected;
    for (uint32_t i = 0; i < 12; ++i) {
      const std::vector<int32_t> prompt = make_prompt(10 + i * 3, i);
      SamplingParams params = greedy(40);
      const std::vector<int32_t> plain = predict(prompt, 40);
      Sequences& bad = params.bad_token_sequences;
      for (size_t at = i % 3 == 0 ? plain.size() : 0; at + 3 < plain.size(); at += 4) {
        bad.push_back({plain.begin() + static_cast<std::ptrdiff_t>(at),
                       plain.begin() + static_cast<std::ptrdiff_t>(at) + 2 + at % 8 / 4});
        const std::vector<int32_t> now = predict_without(prompt, 40, bad);
        bad.push_back(
            {now.begin() + static_cast<std::ptrdiff_t>(at), now.begin() + static_cast<std::ptrdiff_t>(at) + 2});
      }
      expected[fixture.engine.submit(prompt, params)] = bad.empty() ? plain : predict_without(prompt, 40, bad);
    }
    fixture.wait_finished(12);
    for (const auto& [id, tokens] : expected) EXPECT_TOKENS(fixture.result(id).token_ids, tokens);
    EXPECT(fixture.engine.stats().preemptions > 0);
  }
}

TEST(a_guide_needs_room_for_its_end_and_no_rule_beside_it) {
  EngineFixture fixture(with("0", "0"));
  const auto refusal = [&](const SamplingParams& params) {
    try {
      fixture.engine.submit(make_prompt(5, 1), params);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("taken");
  };
  EXPECT_EQ(refusal(guided(10)),
            "max_new_tokens: expected at least 12, which the guide needs to come to an end, found 10");
  const auto changed = [](auto change) {
    SamplingParams params = guided(20);
    change(params);
    return params;
  };
  const auto starts = [&](const std::string& text, const std::string& prefix) {
    if (text.rfind(prefix, 0) != 0) EXPECT_EQ(text, prefix);
  };
  starts(refusal(changed([](auto& p) { p.min_new_tokens = 1; })), "min_new_tokens: expected 0");
  starts(refusal(changed([](auto& p) { p.ignore_eos = true; })), "ignore_eos: expected false");
  starts(refusal(changed([](auto& p) { p.eos_token_ids.clear(); })), "eos_token_ids: expected at least one");
  starts(refusal(changed([](auto& p) { p.bad_token_ids = {1}; })), "bad_token_ids: expected nothing");
  starts(refusal(changed([](auto& p) { p.bad_token_sequences = {{1, 2}}; })), "bad_token_sequences: expected nothing");
  starts(refusal(changed([](auto& p) { p.allowed_token_ids = {1}; })), "allowed_token_ids: expected nothing");
  starts(refusal(changed([](auto& p) { p.logit_bias = {{3, -INFINITY}}; })), "logit_bias: expected finite");
}

}  // namespace
}  // namespace turbomind::test
