// SPDX-License-Identifier: Apache-2.0
//
// Who gets how much of an engine that everybody wants more of.
#include <algorithm>
#include <future>
#include <map>
#include <random>

#include "engine/engine_fixture.h"
#include "engine/scheduler_bench.h"
#include "support/test.h"

namespace turbomind::test {
namespace {

using Tokens = std::map<std::string, int64_t>;

// Tokens that so many steps compute for each tenant.
Tokens served(Bench& bench, int steps) {
  Tokens tokens;
  for (int i = 0; i < steps; ++i) {
    const StepPlan plan = bench.step();
    for (const ScheduledSequence& scheduled : plan.sequences) {
      tokens[scheduled.sequence->params().tenant] += scheduled.count;
    }
  }
  return tokens;
}

// Requests of all sizes, so that counting requests in place of tokens would be wrong.
void add_many(Bench& bench, const std::string& tenant, double weight, int count, int32_t least_prompt = 1) {
  std::mt19937 random(7);
  for (int i = 0; i < count; ++i) {
    const auto prompt = least_prompt + static_cast<int32_t>(random() % 30);
    const auto answer = 1 + static_cast<int64_t>(random() % 20);
    bench.add(prompt, {.tenant = tenant, .weight = weight, .max_new_tokens = answer});
  }
}

void expect_ratio(int64_t found, int64_t to, double expected) {
  const double ratio = static_cast<double>(found) / static_cast<double>(to);
  EXPECT(ratio > expected * 0.9);
  EXPECT(ratio < expected * 1.1);
}

TEST(tenants_take_turns) {
  Bench bench(1, 100, 100);
  std::vector<SequencePtr> greedy_tenant;
  for (int i = 0; i < 4; ++i) greedy_tenant.push_back(bench.add(40, {.tenant = "greedy", .max_new_tokens = 1}));
  bench.step();
  const SequencePtr modest = bench.add(4, {.tenant = "modest", .max_new_tokens = 1});
  const SequencePtr modest_second = bench.add(4, {.tenant = "modest", .max_new_tokens = 1});
  bench.step();
  bench.step();
  bench.step();
  // A tenant that joins starts level with the others, then is behind in tokens served.
  EXPECT(modest->state == SequenceState::kFinished);
  EXPECT(modest_second->state == SequenceState::kFinished);
  EXPECT(greedy_tenant[3]->state == SequenceState::kWaiting);
}

TEST(tokens_are_shared_by_weight) {
  Bench bench(8, 32, 400);
  add_many(bench, "one", 1.0, 600);
  // Larger requests change nothing.
  add_many(bench, "three", 3.0, 600, 30);
  Tokens tokens = served(bench, 1000);
  expect_ratio(tokens["three"], tokens["one"], 3.0);
  EXPECT(bench.scheduler.num_waiting() > 200);
}

TEST(shares_hold_where_blocks_are_short) {
  // Fifteen blocks of four tokens for eight sequences of up to fifty.
  Bench bench(8, 32, 15);
  add_many(bench, "one", 1.0, 600);
  add_many(bench, "three", 3.0, 600);
  Tokens tokens;
  std::map<SequencePtr, int64_t> known;
  for (int i = 0; i < 4000; ++i) {
    for (const ScheduledSequence& scheduled : bench.step().sequences) {
      // What was computed before is not served twice.
      int64_t& through = known[scheduled.sequence];
      tokens[scheduled.sequence->params().tenant] +=
          std::max<int64_t>(0, scheduled.begin + scheduled.count - std::max(through, scheduled.begin));
      through = std::max(through, scheduled.begin + scheduled.count);
    }
  }
  EXPECT(bench.scheduler.num_preemptions() > 100);
  EXPECT(bench.scheduler.num_waiting() > 200);
  expect_ratio(tokens["three"], tokens["one"], 3.0);
}

TEST(time_away_gives_no_credit) {
  Bench bench(4, 32, 200);
  add_many(bench, "busy", 1.0, 300);
  // Present, but with less than its share: one request at a time.
  for (int i = 0; i < 20; ++i) {
    bench.add(2, {.tenant = "trickle", .max_new_tokens = 2});
    served(bench, 20);
  }
  add_many(bench, "busy", 1.0, 300);
  add_many(bench, "trickle", 1.0, 300);
  add_many(bench, "new", 1.0, 300);
  Tokens tokens = served(bench, 300);
  expect_ratio(tokens["trickle"], tokens["busy"], 1.0);
  expect_ratio(tokens["new"], tokens["busy"], 1.0);
}

TEST(time_alone_is_not_held_against_a_tenant) {
  Bench bench(4, 32, 200);
  // Nothing ever waits for longer than a step.
  for (int i = 0; i < 100; ++i) {
    bench.add(20, {.tenant = "first", .max_new_tokens = 5});
    served(bench, 10);
  }
  EXPECT_EQ(bench.scheduler.num_waiting(), 0);
  add_many(bench, "second", 1.0, 200);
  add_many(bench, "first", 1.0, 200);
  Tokens tokens = served(bench, 200);
  expect_ratio(tokens["first"], tokens["second"], 1.0);
}

TEST(a_small_share_is_served) {
  Bench bench(1, 32, 100);
  add_many(bench, "heavy", 100.0, 2000);
  const SequencePtr light = bench.add(4, {.tenant = "light", .weight = 1.0, .max_new_tokens = 1});
  const SequencePtr next = bench.add(4, {.tenant = "light", .weight = 1.0, .max_new_tokens = 1});
  served(bench, 30);
  EXPECT(light->state == SequenceState::kFinished);
  EXPECT(next->state == SequenceState::kWaiting);
  // Four tokens of one are worth four hundred of the other's.
  served(bench, 1000);
  EXPECT(next->state == SequenceState::kFinished);
}

TEST(a_tenant_of_many_salts_has_one_share) {
  Bench bench(4, 32, 200);
  add_many(bench, "honest", 1.0, 400);
  for (int i = 0; i < 400; ++i) {
    bench.add(10, {.tenant = "sly", .salt = std::to_string(i % 7), .max_new_tokens = 10});
  }
  Tokens tokens = served(bench, 400);
  expect_ratio(tokens["sly"], tokens["honest"], 1.0);
}

TEST(a_long_prompt_does_not_hold_up_other_tenants) {
  Bench bench(4, 10, 400);
  const SequencePtr book = bench.add(1000, {.tenant = "reader", .max_new_tokens = 1});
  for (int i = 0; i < 5; ++i) bench.step();
  EXPECT_EQ(book->num_computed, 50);
  const SequencePtr question = bench.add(4, {.tenant = "asker", .max_new_tokens = 1});
  const SequencePtr followup = bench.add(4, {.tenant = "asker", .max_new_tokens = 1});
  bench.step();
  bench.step();
  EXPECT(question->state == SequenceState::kFinished);
  EXPECT(followup->state == SequenceState::kFinished);
  EXPECT(book->num_computed > 50);
}

TEST(priority_goes_before_shares) {
  Bench bench(1, 100, 100);
  bench.add(50, {.tenant = "a", .max_new_tokens = 1});
  bench.step();
  const SequencePtr fair = bench.add(4, {.tenant = "b", .max_new_tokens = 1});
  const SequencePtr urgent = bench.add(4, {.priority = 1, .tenant = "a", .max_new_tokens = 1});
  bench.step();
  EXPECT(urgent->state == SequenceState::kFinished);
  EXPECT(fair->state == SequenceState::kWaiting);
}

// Holds the engine's thread at its sequence's first draw until the gate is opened.
class GateGuide : public TokenGuide {
 public:
  explicit GateGuide(std::shared_future<void> gate) : gate_(std::move(gate)) {}
  std::unique_ptr<TokenGuide> clone() const override { return std::make_unique<GateGuide>(*this); }
  int64_t draws_to_end() const override { return 1; }
  void fill_mask(std::span<uint32_t> mask) override {
    gate_.wait();
    mask[0] = 2;
  }
  bool accept(int32_t, int64_t) override { return true; }

 private:
  std::shared_future<void> gate_;
};

TEST(a_running_engine_shares_by_weight) {
  EngineFixture fixture(null_options({{"tokens", "context"}}));
  std::promise<void> gate;
  SamplingParams first = greedy(1);
  first.guide = std::make_shared<GateGuide>(gate.get_future().share());
  first.eos_token_ids = {kVocab - 1};
  fixture.engine.submit(make_prompt(8, 1), first);
  std::map<uint64_t, std::string> tenants;
  std::mt19937 random(3);
  for (uint32_t i = 0; i < 400; ++i) {
    for (const auto& [tenant, weight] : {std::pair<std::string, double>{"one", 1.0}, {"three", 3.0}}) {
      SamplingParams params = greedy(1 + random() % 20);
      params.tenant = tenant;
      params.tenant_weight = weight;
      tenants[fixture.engine.submit(make_prompt(8, random()), params)] = tenant;
    }
  }
  gate.set_value();  // all wait now, so that the order of service depends on nothing else
  fixture.wait_finished(801);
  std::vector<std::pair<double, uint64_t>> order;
  for (const auto& [id, tenant] : tenants) order.emplace_back(fixture.result(id).times.finish, id);
  std::sort(order.begin(), order.end());
  Tokens tokens;
  for (size_t i = 0; i < 300; ++i) {
    const uint64_t id = order[i].second;
    tokens[tenants[id]] += 8 + static_cast<int64_t>(fixture.result(id).token_ids.size());
  }
  expect_ratio(tokens["three"], tokens["one"], 3.0);
}

}  // namespace
}  // namespace turbomind::test
