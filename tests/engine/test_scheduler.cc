// SPDX-License-Identifier: Apache-2.0
#include "engine/scheduler_bench.h"
#include "support/test.h"
#include "turbomind/engine/step_batch.h"

namespace turbomind::test {
namespace {

TEST(budget_is_shared_by_decodes_and_chunks) {
  Bench bench(8, 10, 100);
  const SequencePtr a = bench.add(3);
  const SequencePtr b = bench.add(20);
  StepPlan plan = bench.step();
  EXPECT_EQ(count_of(plan, a), 3);
  EXPECT_EQ(count_of(plan, b), 7);
  EXPECT(!plan.sequences[1].samples);
  plan = bench.step();
  EXPECT_EQ(count_of(plan, a), 1);
  EXPECT_EQ(count_of(plan, b), 9);
  plan = bench.step();
  EXPECT_EQ(count_of(plan, b), 4);
  EXPECT(plan.sequences[1].samples);
  EXPECT_EQ(plan.num_tokens, 5);
}

TEST(number_of_sequences_is_bounded) {
  Bench bench(2, 100, 100);
  for (int i = 0; i < 3; ++i) bench.add(4);
  EXPECT_EQ(bench.step().sequences.size(), 2U);
  EXPECT_EQ(bench.scheduler.num_waiting(), 1);
}

TEST(empty_plan_takes_no_step_number) {
  Bench bench(2, 100, 100);
  EXPECT(bench.step().sequences.empty());
  EXPECT_EQ(bench.scheduler.last_step(), 0U);
}

TEST(higher_priority_is_admitted_first) {
  Bench bench(1, 100, 100);
  const SequencePtr low = bench.add(4, {.max_new_tokens = 1});
  const SequencePtr high = bench.add(4, {.priority = 5, .max_new_tokens = 1});
  EXPECT_EQ(count_of(bench.step(), high), 4);
  EXPECT_EQ(count_of(bench.step(), low), 4);
}

TEST(urgent_request_takes_the_place_of_a_running_one) {
  Bench bench(1, 100, 100);
  const SequencePtr low = bench.add(4);
  bench.step();
  const SequencePtr high = bench.add(4, {.priority = 1, .max_new_tokens = 1});
  EXPECT_EQ(count_of(bench.step(), high), 4);
  EXPECT(low->state == SequenceState::kWaiting);
  EXPECT_EQ(bench.scheduler.num_preemptions(), 1);
  // Its prompt is still cached; the token drawn before is computed again.
  EXPECT_EQ(count_of(bench.step(), low), 1);
}

TEST(equal_priority_does_not_preempt) {
  Bench bench(1, 100, 100);
  bench.add(4);
  bench.step();
  bench.add(4);
  bench.step();
  EXPECT_EQ(bench.scheduler.num_preemptions(), 0);
}

TEST(youngest_yields_when_blocks_run_out) {
  // Two prompts of two blocks each; the fifth block is all there is to grow.
  Bench bench(4, 100, 5);
  const SequencePtr old = bench.add(8);
  const SequencePtr young = bench.add(4);
  for (int i = 0; i < 10; ++i) bench.step();
  EXPECT(bench.scheduler.num_preemptions() > 0);
  EXPECT(old->state == SequenceState::kRunning);
  EXPECT_EQ(old->num_generated(), 10);
  EXPECT(young->state == SequenceState::kWaiting);
}

TEST(preempted_sequences_all_end) {
  Bench bench(8, 16, 8);
  std::vector<SequencePtr> all;
  for (int i = 0; i < 8; ++i) all.push_back(bench.add(5, {.max_new_tokens = 20}));
  int steps = 0;
  while (!bench.step().sequences.empty()) ++steps;
  for (const SequencePtr& sequence : all) {
    EXPECT(sequence->state == SequenceState::kFinished);
    EXPECT_EQ(sequence->tokens.size(), 25U);
  }
  EXPECT(bench.scheduler.num_preemptions() > 0);
  EXPECT(steps < 1000);
}

TEST(sequences_of_a_request_split_off_after_the_prompt) {
  Bench bench(4, 8, 100);
  const SequencePtr first = bench.add(10, {.n = 3});
  const std::vector<SequencePtr> siblings = first->siblings;
  EXPECT_EQ(bench.step().sequences.size(), 1U);
  const StepPlan plan = bench.step();
  EXPECT_EQ(plan.sequences.size(), 3U);
  EXPECT_EQ(plan.num_tokens, 2);
  EXPECT_EQ(plan.sequences[2].count, 0);
  EXPECT_EQ(plan.sequences[2].row_owner, 0);
  EXPECT_EQ(siblings[0]->blocks[0], first->blocks[0]);
  // Each writes the shared third block: two of them into a copy.
  const StepPlan next = bench.step();
  EXPECT_EQ(next.num_tokens, 3);
  EXPECT_EQ(next.copies.size(), 2U);
}

TEST(one_token_prompt_splits_off_in_its_first_step) {
  Bench bench(4, 8, 100);
  bench.add(1, {.n = 3});
  const StepPlan plan = bench.step();
  EXPECT_EQ(plan.sequences.size(), 3U);
  EXPECT_EQ(plan.num_tokens, 1);
}

TEST(places_are_kept_for_sequences_to_come) {
  Bench bench(3, 4, 100);
  bench.add(10, {.n = 3});
  bench.add(1);
  bench.step();
  bench.step();
  EXPECT_EQ(bench.scheduler.num_waiting(), 1);
}

TEST(finishing_a_waiting_sequence_removes_it) {
  Bench bench(1, 100, 100);
  bench.add(4);
  const SequencePtr waiting = bench.add(4);
  bench.step();
  bench.scheduler.finish(waiting, true);
  EXPECT_EQ(bench.scheduler.num_waiting(), 0);
  EXPECT_EQ(bench.step().sequences.size(), 1U);
}

TEST(requests_with_one_prefix_share_it_in_the_same_step) {
  Bench bench(4, 100, 100);
  const SequencePtr first = bench.add(21);
  auto request = std::make_shared<Request>(*first->request);
  request->id = 99;
  const auto second = std::make_shared<Sequence>(request, 0);
  bench.scheduler.add(second);
  const StepPlan plan = bench.step();
  EXPECT_EQ(count_of(plan, first), 21);
  EXPECT_EQ(count_of(plan, second), 1);
}

TEST(rows_that_draw_are_picked_out_of_a_prefill) {
  Bench bench(4, 30, 100);
  bench.add(5);
  BatchBuilder builder(100);
  {
    const StepBatch& first = builder.build(bench.scheduler.schedule(1.0));
    EXPECT(first.picks_wanted);
    EXPECT(first.wanted.rows == std::vector<int32_t>{4});
    EXPECT(first.wanted.context_lens == std::vector<int32_t>{5});
  }
  bench.add(12, {.n = 2});
  const SequencePtr last = bench.add(40);
  const StepPlan plan = bench.scheduler.schedule(1.0);
  const StepBatch& batch = builder.build(plan);
  EXPECT(batch.picks_wanted);
  EXPECT_EQ(batch.sampling.rows(), 3);
  // One row for the two that part; none for the one whose prompt goes on in the next step.
  EXPECT((batch.wanted.rows == std::vector<int32_t>{0, 12}));
  EXPECT((batch.wanted.cu_seqlens_q == std::vector<int32_t>{0, 1, 2}));
  EXPECT((batch.wanted.context_lens == std::vector<int32_t>{6, 12}));
  const auto stride = static_cast<std::ptrdiff_t>(batch.block_table_stride);
  EXPECT_EQ(static_cast<std::ptrdiff_t>(batch.wanted.block_table.size()), 2 * stride);
  EXPECT(std::equal(batch.wanted.block_table.begin(), batch.wanted.block_table.end(), batch.block_table.begin()));
  EXPECT(count_of(plan, last) < 40);
}

TEST(hidden_states_of_drawn_rows_need_no_others) {
  for (const OutputRows wanted : {OutputRows::kGeneration, OutputRows::kAll}) {
    Bench bench(4, 30, 100);
    bench.add(5, {.hidden_states = wanted});
    BatchBuilder builder(100);
    EXPECT_EQ(builder.build(bench.scheduler.schedule(1.0)).picks_wanted, wanted == OutputRows::kGeneration);
  }
}

TEST(decode_steps_pick_nothing_out) {
  Bench bench(4, 30, 100);
  bench.add(5);
  bench.add(5);
  BatchBuilder builder(100);
  EXPECT(builder.build(bench.scheduler.schedule(1.0)).picks_wanted);
  const StepBatch& decode = builder.build(bench.scheduler.schedule(1.0));
  EXPECT(decode.decode_only);
  EXPECT(!decode.picks_wanted);
  EXPECT(decode.wanted.rows.empty());
}

// Rows of the batch's block table against the sequences' own blocks, and zeros behind them.
void expect_block_table(const StepBatch& batch, const StepPlan& plan, const std::vector<std::vector<int32_t>>& blocks) {
  size_t row = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    if (plan.sequences[i].count == 0) continue;
    const auto stride = static_cast<size_t>(batch.block_table_stride);
    std::vector<int32_t> expected = blocks[i];
    expected.resize(stride, 0);
    const auto begin = batch.block_table.begin() + static_cast<std::ptrdiff_t>(row++ * stride);
    EXPECT(std::equal(expected.begin(), expected.end(), begin));
  }
  EXPECT_EQ(static_cast<int64_t>(row), batch.num_seqs);
}

// Plans a step, builds its batch and lets it run; returns the width of the block table.
int64_t run_step(Bench& bench, BatchBuilder& builder) {
  const StepPlan plan = bench.scheduler.schedule(1.0);
  const StepBatch& batch = builder.build(plan);
  std::vector<std::vector<int32_t>> blocks;
  for (const ScheduledSequence& scheduled : plan.sequences) blocks.push_back(scheduled.sequence->blocks);
  expect_block_table(batch, plan, blocks);
  for (const ScheduledSequence& scheduled : plan.sequences) {
    Sequence& sequence = *scheduled.sequence;
    for (; sequence.num_pending > 0; --sequence.num_pending) sequence.tokens.push_back(7);
    if (sequence.at_length()) bench.scheduler.finish(scheduled.sequence, true);
  }
  return batch.block_table_stride;
}

TEST(block_table_follows_sequences_that_grow_split_leave_and_come_back) {
  Bench bench(8, 64, 16);
  BatchBuilder builder(1000000);
  for (int32_t i = 0; i < 60; ++i) {
    if (i % 3 == 0) bench.add(5 + 7 * (i % 4), {.priority = i % 2, .n = 1 + i % 3, .max_new_tokens = 3 + i % 17});
    if (i % 11 == 10) bench.scheduler.recompute_running();
    run_step(bench, builder);
  }
  EXPECT(bench.scheduler.num_preemptions() > 0);
}

TEST(block_table_is_narrow_again_after_a_long_sequence) {
  Bench bench(8, 4000, 1100);
  BatchBuilder builder(1000000);
  const SequencePtr longest = bench.add(4 * 500);
  bench.add(4);
  EXPECT(run_step(bench, builder) >= 500);
  bench.scheduler.finish(longest, true);
  EXPECT(run_step(bench, builder) < 100);
}

// Another cache numbers its blocks, and the changes to them, anew.
TEST(block_table_of_another_cache_is_not_taken_for_the_last_one) {
  BatchBuilder builder(1000000);
  Bench before(1, 64, 40);
  before.add(9);
  run_step(before, builder);
  Bench after(1, 64, 40);
  const SequencePtr first = after.add(13);
  builder.reset();
  run_step(after, builder);
  EXPECT_EQ(first->blocks.size(), 4U);
}

}  // namespace
}  // namespace turbomind::test
