// SPDX-License-Identifier: Apache-2.0
//
// Decoders of every shape of layer against the reference transformer, on each plug-in that computes.
#include <cmath>
#include <functional>
#include <iostream>
#include <thread>

#include "model/decoder_runner.h"
#include "support/test.h"
#include "turbomind/runtime/registry.h"

namespace turbomind::test {
namespace {

// Of the largest logit; float32 activations and KV.
constexpr double kTolerance = 2e-5;

const Plugin& plugin() { return PluginRegistry::instance().load(TM_PLUGIN_UNDER_TEST); }

std::vector<TinyModel> all_models() {
  return {tiny_llama(), tiny_llama(MatrixFormats::kMixed), tiny_qwen2(), tiny_qwen3(), tiny_gemma3(), tiny_medley()};
}

void for_all_models(const std::function<void(const TinyModel&)>& fn) {
  for (const TinyModel& model : all_models()) fn(model);
}

Rows reference_logits(const TinyModel& model, const std::vector<int32_t>& tokens,
                      const std::map<int64_t, Row>& embeddings = {}) {
  const ReferenceDecoder reference(model.config, model.reference);
  return reference.logits(reference.hidden(tokens, embeddings));
}

// Rows [begin, begin + expected.size()) of found.
void expect_rows(const TinyModel& model, const char* what, const Rows& found, size_t begin, const Rows& expected) {
  double largest = 0;
  double error = 0;
  for (size_t t = 0; t < expected.size(); ++t) {
    for (size_t v = 0; v < expected[t].size(); ++v) {
      largest = std::max(largest, std::abs(expected[t][v]));
      const double difference = std::abs(found[begin + t][v] - expected[t][v]);
      error = difference <= error ? error : difference;  // keeps a NaN
    }
  }
  if (error <= kTolerance * largest) return;
  std::ostringstream message;
  message << model.name << ", " << what << ": logits off by " << error << ", expected at most " << kTolerance * largest;
  report_failure(__FILE__, __LINE__, message.str());
}

std::vector<int32_t> part(const std::vector<int32_t>& tokens, size_t begin, size_t count) {
  const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(begin);
  return {first, first + static_cast<std::ptrdiff_t>(count)};
}

TEST(prefill_of_two_sequences_in_one_step) {
  for_all_models([](const TinyModel& model) {
    DecoderRunner runner(plugin(), model);
    const auto a = random_tokens(model.config, 23, 1);
    const auto b = random_tokens(model.config, 9, 2);
    const Rows logits = runner.step({{0, a}, {1, b}});
    expect_rows(model, "first sequence", logits, 0, reference_logits(model, a));
    expect_rows(model, "second sequence", logits, a.size(), reference_logits(model, b));
  });
}

TEST(prefill_in_chunks) {
  for_all_models([](const TinyModel& model) {
    DecoderRunner runner(plugin(), model);
    const auto tokens = random_tokens(model.config, 40, 3);
    Rows logits;
    size_t begin = 0;
    for (const size_t count : {5, 1, 17, 16, 1}) {
      const Rows rows = runner.step({{0, part(tokens, begin, count)}});
      logits.insert(logits.end(), rows.begin(), rows.end());
      begin += count;
    }
    expect_rows(model, "chunks", logits, 0, reference_logits(model, tokens));
  });
}

TEST(prefill_then_decode_beside_another_prefill) {
  for_all_models([](const TinyModel& model) {
    DecoderRunner runner(plugin(), model);
    const auto a = random_tokens(model.config, 26, 4);
    const auto b = random_tokens(model.config, 30, 5);
    Rows logits_a = runner.step({{0, part(a, 0, 20)}});
    Rows logits_b;
    for (size_t i = 0; i < 6; ++i) {
      const Rows rows = runner.step({{0, part(a, 20 + i, 1)}, {1, part(b, i * 5, 5)}});
      logits_a.push_back(rows.front());
      logits_b.insert(logits_b.end(), rows.begin() + 1, rows.end());
    }
    expect_rows(model, "decoding sequence", logits_a, 0, reference_logits(model, a));
    expect_rows(model, "prefilling sequence", logits_b, 0, reference_logits(model, b));
  });
}

double distance(const Row& a, const Row& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  return largest;
}

TEST(rows_that_are_not_wanted_are_left_out_of_the_last_layer) {
  for_all_models([](const TinyModel& model) {
    DecoderRunner runner(plugin(), model);
    const auto a = random_tokens(model.config, 24, 10);
    const auto b = random_tokens(model.config, 9, 11);
    const Rows expected_a = reference_logits(model, a);
    const Rows expected_b = reference_logits(model, b);
    runner.step({{0, part(a, 0, 13)}}, {}, std::vector<int32_t>{});
    const Rows logits = runner.step({{0, part(a, 13, 8)}, {1, b}}, {}, std::vector<int32_t>{7, 16});
    expect_rows(model, "wanted row of the first", {logits[7]}, 0, {expected_a[20]});
    expect_rows(model, "wanted row of the second", {logits[16]}, 0, {expected_b[8]});
    EXPECT(distance(logits[0], expected_a[13]) > 1e-3);
    // Later tokens find the keys and values of all.
    const Rows later = runner.step({{0, part(a, 21, 3)}});
    expect_rows(model, "later", later, 0, Rows(expected_a.begin() + 21, expected_a.end()));
  });
}

TEST(more_wanted_rows_than_half_are_computed_with_the_others) {
  const TinyModel model = tiny_llama();
  DecoderRunner runner(plugin(), model);
  const auto tokens = random_tokens(model.config, 4, 12);
  expect_rows(model, "all rows", runner.step({{0, tokens}}, {}, std::vector<int32_t>{0, 1, 3}), 0,
              reference_logits(model, tokens));
}

TEST(copied_blocks_carry_a_sequence_on) {
  const TinyModel model = tiny_gemma3();
  DecoderRunner runner(plugin(), model);
  auto tokens = random_tokens(model.config, 24, 6);
  runner.step({{0, part(tokens, 0, 18)}});
  runner.fork(0, 1);
  runner.step({{0, random_tokens(model.config, 6, 7)}});  // goes its own way, in its own blocks
  const Rows logits = runner.step({{1, part(tokens, 18, 6)}});
  const Rows expected = reference_logits(model, tokens);
  expect_rows(model, "fork", logits, 0, Rows(expected.begin() + 18, expected.end()));
}

TEST(given_embeddings_replace_tokens) {
  const TinyModel model = tiny_gemma3();
  const auto tokens = random_tokens(model.config, 12, 8);
  std::map<int64_t, Row> pictures;
  for (const int64_t place : {2, 3, 9}) {
    for (int64_t i = 0; i < model.config.hidden_size; ++i) {
      pictures[place].push_back(static_cast<float>(std::sin(static_cast<double>(place * 64 + i))));
    }
  }
  DecoderRunner runner(plugin(), model);
  expect_rows(model, "pictures", runner.step({{0, tokens}}, pictures), 0, reference_logits(model, tokens, pictures));
}

// Runs fn(rank) on a thread each; the first exception is thrown on.
void on_ranks(int32_t size, const std::function<void(int32_t)>& fn) {
  std::vector<std::exception_ptr> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        fn(rank);
      } catch (...) {
        errors[static_cast<size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

#ifdef TM_PLUGIN_CPU  // one device for all ranks

TEST(two_ranks_give_what_one_gives) {
  for_all_models([](const TinyModel& model) {
    const auto a = random_tokens(model.config, 21, 9);
    const CommId id = Comm::unique_id(Device(plugin(), 0));
    std::vector<Rows> logits(2);
    on_ranks(2, [&](int32_t rank) {
      const DecoderRunner::Ranks ranks{id, rank, 2};
      DecoderRunner runner(plugin(), model, &ranks);
      Rows& rows = logits[static_cast<size_t>(rank)];
      runner.step({{1, a}}, {}, std::vector<int32_t>{20});
      rows = runner.step({{0, part(a, 0, 17)}});
      for (size_t i = 17; i < a.size(); ++i) rows.push_back(runner.step({{0, part(a, i, 1)}}).front());
    });
    const Rows expected = reference_logits(model, a);
    expect_rows(model, "rank 0 of 2", logits[0], 0, expected);
    expect_rows(model, "rank 1 of 2", logits[1], 0, expected);
  });
}

#endif

}  // namespace
}  // namespace turbomind::test
