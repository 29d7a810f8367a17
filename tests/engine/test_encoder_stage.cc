// SPDX-License-Identifier: Apache-2.0
//
// What the encoder does in a step: budgets, embeddings kept by content, prompts cut at pictures.
#include <numeric>

#include "support/test.h"
#include "turbomind/engine/scheduler.h"
#include "turbomind/engine/step_batch.h"

namespace turbomind::test {
namespace {

struct Picture {
  int64_t begin = 0;
  char content = 'a';
  int64_t tokens = 0;
  int64_t patches = 0;
};

std::shared_ptr<const EncoderItem> make_item(const Picture& picture) {
  auto item = std::make_shared<EncoderItem>();
  item->digest.assign(32, picture.content);
  item->num_rows = picture.patches;
  item->num_tokens = picture.tokens;
  return item;
}

// A scheduler with an encoder whose steps "run" by giving each sampling sequence a token. Encoders in line are done by
// the next step, others when a test says so.
class Bench {
 public:
  Bench(int64_t max_tokens, const EncoderBudget& budget)
      : cache(256, 4, true),
        in_line(!budget.overlapped),
        stage(budget),
        scheduler({.max_num_seqs = 8, .max_num_batched_tokens = max_tokens}, cache, &stage) {}

  SequencePtr add(int64_t prompt_len, const std::vector<Picture>& pictures, int64_t max_new_tokens = 1) {
    auto request = std::make_shared<Request>();
    request->id = ++last_id_;
    request->prompt.resize(static_cast<size_t>(prompt_len));
    std::iota(request->prompt.begin(), request->prompt.end(), static_cast<int32_t>(last_id_) * 1000);
    for (const Picture& picture : pictures) request->media.spans.push_back({picture.begin, make_item(picture)});
    request->max_len = prompt_len + max_new_tokens;
    auto sequence = std::make_shared<Sequence>(request, 0);
    scheduler.add(sequence);
    return sequence;
  }

  StepPlan step() {
    if (in_line) stage.settle();
    StepPlan plan = scheduler.schedule(1.0);
    for (const ScheduledSequence& scheduled : plan.sequences) {
      Sequence& sequence = *scheduled.sequence;
      for (; sequence.num_pending > 0; --sequence.num_pending) sequence.tokens.push_back(7);
      if (sequence.at_length()) scheduler.finish(scheduled.sequence, true);
    }
    return plan;
  }

  KvCache cache;
  const bool in_line;
  EncoderStage stage;
  Scheduler scheduler;

 private:
  uint64_t last_id_ = 0;
};

const ScheduledSequence* find(const StepPlan& plan, const SequencePtr& sequence) {
  for (const ScheduledSequence& scheduled : plan.sequences) {
    if (scheduled.sequence == sequence) return &scheduled;
  }
  return nullptr;
}

int64_t count_of(const StepPlan& plan, const SequencePtr& sequence) {
  const ScheduledSequence* scheduled = find(plan, sequence);
  return scheduled ? scheduled->count : -1;
}

std::string contents(const StepPlan& plan) {
  std::string text;
  for (const EncodeJob& job : plan.encodes) text += job.item->digest.front();
  return text;
}

TEST(a_picture_is_encoded_when_its_first_token_is_computed) {
  Bench bench(6, {.rows = 100, .cache_rows = 100});
  const SequencePtr sequence = bench.add(20, {{.begin = 8, .content = 'a', .tokens = 6, .patches = 24}});
  StepPlan plan = bench.step();
  EXPECT_EQ(count_of(plan, sequence), 6);
  EXPECT_EQ(contents(plan), "");
  plan = bench.step();
  EXPECT_EQ(contents(plan), "a");
  const std::vector<int32_t> rows = plan.encodes[0].rows;
  EXPECT_EQ(rows.size(), 6U);
  // The chunk ends inside the picture; its rest reads the rows that are there.
  EXPECT_EQ(plan.sequences[0].media.size(), 1U);
  EXPECT_EQ(plan.sequences[0].media[0].begin, 8);
  EXPECT(plan.sequences[0].media[0].rows == std::vector<int32_t>(rows.begin(), rows.begin() + 4));
  plan = bench.step();
  EXPECT_EQ(contents(plan), "");
  EXPECT_EQ(plan.sequences[0].media[0].begin, 12);
  EXPECT(plan.sequences[0].media[0].rows == std::vector<int32_t>(rows.begin() + 4, rows.end()));
}

TEST(a_picture_whose_tokens_see_each_other_is_not_cut) {
  Bench bench(10, {.rows = 100, .cache_rows = 100, .whole_tokens = 8});
  const SequencePtr sequence = bench.add(24, {{.begin = 4, .content = 'a', .tokens = 7, .patches = 28},
                                              {.begin = 12, .content = 'b', .tokens = 8, .patches = 32}});
  const int64_t expected[] = {4, 8, 10, 2};  // text; picture and text; picture and text; text
  const char* encoded[] = {"", "a", "b", ""};
  for (size_t i = 0; i < 4; ++i) {
    const StepPlan plan = bench.step();
    EXPECT_EQ(count_of(plan, sequence), expected[i]);
    EXPECT_EQ(contents(plan), encoded[i]);
  }
}

TEST(spans_of_a_step_are_those_of_its_pictures) {
  Bench bench(10, {.rows = 100, .cache_rows = 100, .whole_tokens = 8});
  bench.add(3, {});
  bench.add(12, {{.begin = 5, .content = 'a', .tokens = 7, .patches = 28}});
  BatchBuilder spanned(100000, false, true);
  BatchBuilder plain(100000);
  StepPlan plan = bench.step();
  EXPECT(spanned.build(plan).spans.empty());
  plan = bench.step();
  EXPECT(spanned.build(plan).spans == std::vector<int32_t>({0, 5, 12}));
  EXPECT(plain.build(plan).spans.empty());
}

TEST(patches_have_a_budget_of_their_own) {
  Bench bench(100, {.rows = 30, .cache_rows = 100});
  const SequencePtr a = bench.add(10, {{.begin = 2, .content = 'a', .tokens = 4, .patches = 20}});
  const SequencePtr b = bench.add(10, {{.begin = 3, .content = 'b', .tokens = 4, .patches = 20}});
  const SequencePtr c = bench.add(10, {{.begin = 5, .content = 'c', .tokens = 4, .patches = 10}});
  StepPlan plan = bench.step();
  EXPECT_EQ(contents(plan), "ac");
  EXPECT_EQ(count_of(plan, a), 10);
  EXPECT_EQ(count_of(plan, b), 3);  // the text before its picture
  EXPECT_EQ(count_of(plan, c), 10);
  plan = bench.step();
  EXPECT_EQ(contents(plan), "b");
  EXPECT_EQ(count_of(plan, b), 7);
}

TEST(decoding_goes_on_while_a_picture_waits) {
  Bench bench(100, {.rows = 20, .cache_rows = 100});
  const SequencePtr talker = bench.add(5, {}, 10);
  bench.step();
  const SequencePtr a = bench.add(4, {{.begin = 0, .content = 'a', .tokens = 4, .patches = 20}});
  const SequencePtr b = bench.add(4, {{.begin = 0, .content = 'b', .tokens = 4, .patches = 20}});
  StepPlan plan = bench.step();
  EXPECT_EQ(count_of(plan, talker), 1);
  EXPECT_EQ(count_of(plan, a), 4);
  EXPECT_EQ(count_of(plan, b), -1);
  plan = bench.step();
  EXPECT_EQ(count_of(plan, talker), 1);
  EXPECT_EQ(count_of(plan, b), 4);
}

TEST(one_content_is_encoded_once) {
  Bench bench(100, {.rows = 100, .cache_rows = 100});
  const Picture picture{.begin = 1, .content = 'a', .tokens = 4, .patches = 16};
  bench.add(8, {picture});
  bench.add(9, {picture});
  StepPlan plan = bench.step();
  EXPECT_EQ(contents(plan), "a");
  EXPECT(plan.sequences[0].media[0].rows == plan.sequences[1].media[0].rows);
  bench.add(10, {picture, {.begin = 5, .content = 'b', .tokens = 4, .patches = 16}});
  EXPECT_EQ(contents(bench.step()), "b");
  EXPECT_EQ(bench.stage.num_encoded(), 2);
  EXPECT_EQ(bench.stage.num_cached_rows(), 8);
}

TEST(the_least_recently_used_embeddings_make_room) {
  Bench bench(100, {.rows = 100, .cache_rows = 8});
  const auto show = [&](char content) {
    bench.add(5, {{.begin = 0, .content = content, .tokens = 4, .patches = 4}});
    return contents(bench.step());
  };
  EXPECT_EQ(show('a'), "a");
  EXPECT_EQ(show('b'), "b");
  EXPECT_EQ(show('a'), "");
  EXPECT_EQ(show('c'), "c");  // in the place of b
  EXPECT_EQ(show('a'), "");
  EXPECT_EQ(show('b'), "b");
  EXPECT_EQ(bench.stage.num_cached_rows(), 8);
}

TEST(what_a_step_reads_is_not_replaced_in_it) {
  Bench bench(100, {.rows = 100, .cache_rows = 8});
  const SequencePtr a = bench.add(7, {{.begin = 0, .content = 'a', .tokens = 6, .patches = 6}});
  const SequencePtr b = bench.add(7, {{.begin = 2, .content = 'b', .tokens = 4, .patches = 4}});
  StepPlan plan = bench.step();
  EXPECT_EQ(count_of(plan, a), 7);
  EXPECT_EQ(count_of(plan, b), 2);
  plan = bench.step();
  EXPECT_EQ(contents(plan), "b");
  EXPECT_EQ(count_of(plan, b), 5);
}

TEST(pictures_that_fill_everything_still_get_on) {
  Bench bench(4, {.rows = 8, .cache_rows = 8});
  std::vector<SequencePtr> sequences;
  for (const char content : {'a', 'b', 'c'}) {
    sequences.push_back(bench.add(9, {{.begin = 0, .content = content, .tokens = 8, .patches = 8}}));
  }
  for (int step = 0; step < 40; ++step) bench.step();
  for (const SequencePtr& sequence : sequences) EXPECT(sequence->state == SequenceState::kFinished);
}

TEST(a_failed_step_leaves_no_embeddings) {
  Bench bench(100, {.rows = 100, .cache_rows = 100});
  const Picture picture{.begin = 0, .content = 'a', .tokens = 4, .patches = 4};
  bench.add(5, {picture});
  bench.step();
  EXPECT(bench.stage.discard() == std::vector<std::string>{std::string(32, 'a')});
  bench.add(6, {picture});
  EXPECT_EQ(contents(bench.step()), "a");
}

TEST(what_is_encoded_in_line_spares_those_that_decode) {
  Bench bench(100, {.rows = 100, .cache_rows = 200, .rows_beside_decodes = 20});
  const SequencePtr talker = bench.add(5, {}, 10);
  bench.step();
  bench.add(50, {{.begin = 0, .content = 'a', .tokens = 10, .patches = 10},
                 {.begin = 10, .content = 'b', .tokens = 10, .patches = 10},
                 {.begin = 20, .content = 'c', .tokens = 10, .patches = 10},
                 {.begin = 30, .content = 'd', .tokens = 10, .patches = 50}});
  EXPECT_EQ(contents(bench.step()), "ab");
  EXPECT_EQ(contents(bench.step()), "c");
  EXPECT_EQ(contents(bench.step()), "d");  // one always fits
  bench.scheduler.finish(talker, true);
  bench.add(50, {{.begin = 0, .content = 'e', .tokens = 10, .patches = 40},
                 {.begin = 10, .content = 'f', .tokens = 10, .patches = 40}});
  EXPECT_EQ(contents(bench.step()), "ef");
}

TEST(an_overlapped_picture_waits_while_others_decode) {
  Bench bench(100, {.rows = 100, .cache_rows = 100, .overlapped = true});
  const SequencePtr talker = bench.add(5, {}, 10);
  bench.step();
  const SequencePtr a = bench.add(9, {{.begin = 2, .content = 'a', .tokens = 4, .patches = 20}});
  StepPlan plan = bench.step();
  EXPECT_EQ(contents(plan), "a");
  EXPECT_EQ(count_of(plan, a), 2);  // the text before it
  for (int i = 0; i < 3; ++i) {
    plan = bench.step();
    EXPECT_EQ(contents(plan), "");
    EXPECT_EQ(count_of(plan, talker), 1);
    EXPECT_EQ(count_of(plan, a), -1);
  }
  bench.stage.settle();
  plan = bench.step();
  EXPECT_EQ(count_of(plan, talker), 1);
  EXPECT_EQ(count_of(plan, a), 7);
}

TEST(pictures_behind_one_that_is_encoded_go_with_it_and_others_wait) {
  Bench bench(100, {.rows = 100, .cache_rows = 12, .overlapped = true});
  const SequencePtr a = bench.add(10, {{.begin = 1, .content = 'a', .tokens = 4, .patches = 4},
                                       {.begin = 5, .content = 'b', .tokens = 4, .patches = 4}});
  EXPECT_EQ(contents(bench.step()), "ab");
  const SequencePtr c = bench.add(6, {{.begin = 0, .content = 'c', .tokens = 6, .patches = 6}});
  EXPECT_EQ(contents(bench.step()), "");
  bench.scheduler.finish(a, true);
  EXPECT_EQ(contents(bench.step()), "");  // nor is what is being written replaced
  EXPECT(bench.stage.is_encoding());
  bench.stage.settle();
  EXPECT_EQ(contents(bench.step()), "c");
  bench.stage.settle();
  EXPECT_EQ(count_of(bench.step(), c), 6);
}

TEST(overlapped_pictures_that_fill_everything_still_get_on) {
  Bench bench(4, {.rows = 8, .cache_rows = 8, .overlapped = true});
  std::vector<SequencePtr> sequences;
  for (const char content : {'a', 'b', 'c'}) {
    sequences.push_back(bench.add(9, {{.begin = 0, .content = content, .tokens = 8, .patches = 8}}));
  }
  for (int step = 0; step < 60; ++step) {
    bench.step();
    if (step % 3 == 0) bench.stage.settle();
  }
  for (const SequencePtr& sequence : sequences) EXPECT(sequence->state == SequenceState::kFinished);
}

// A text-only config that everything below fits.
EncoderConfig small_encoder() {
  EncoderConfig config;
  config.patch_dim = 2;
  config.hidden_size = 4;
  config.num_layers = 1;
  config.num_heads = 1;
  config.intermediate_size = 4;
  config.out_hidden_size = 4;
  config.table_rows = 3;
  config.projector.merge_size = 2;
  return config;
}

EncoderItem valid_item() {
  static const std::vector<float> pixels(8, 0.0F);
  EncoderItem item;
  item.digest.assign(32, 'd');
  item.num_rows = 4;
  item.num_tokens = 2;
  item.pixels = pixels.data();
  item.pixel_bytes = 32;
  item.segments = {3, 1};
  item.table = {.width = 1, .rows = {0, 1, 2, 0}, .weights = {}};
  return item;
}

void expect_refused(const char* part, const std::function<void(EncoderItem&)>& change) {
  EncoderItem item = valid_item();
  change(item);
  EXPECT_ERROR(validate(item, small_encoder()), ErrorCode::kInvalidArgument, part);
}

TEST(an_item_that_the_encoder_cannot_read_is_refused) {
  validate(valid_item(), small_encoder());
  expect_refused("digest", [](EncoderItem& item) { item.digest = "short"; });
  expect_refused("pixels", [](EncoderItem& item) { item.pixel_bytes = 28; });
  expect_refused("pixels", [](EncoderItem& item) { item.num_rows = 0; });
  expect_refused("segments", [](EncoderItem& item) { item.segments = {3, 2}; });
  expect_refused("segments", [](EncoderItem& item) { item.segments = {5, -1}; });
  expect_refused("windows", [](EncoderItem& item) { item.windows = {4}; });
  expect_refused("positions", [](EncoderItem& item) { item.positions.resize(8); });
  expect_refused("table", [](EncoderItem& item) { item.table.rows[1] = 3; });
  expect_refused("table", [](EncoderItem& item) { item.table.rows[1] = -1; });
  expect_refused("table", [](EncoderItem& item) { item.table.rows.pop_back(); });
  expect_refused("table", [](EncoderItem& item) { item.table.weights = {1.0F}; });
  expect_refused("table", [](EncoderItem& item) { item.table = {}; });
  expect_refused("merge", [](EncoderItem& item) { item.merge = {0, 4}; });
  expect_refused("merge", [](EncoderItem& item) { item.merge = {0, 1, 2}; });
  expect_refused("output", [](EncoderItem& item) { item.output = {.width = 1, .rows = {0, 2}, .weights = {}}; });
  expect_refused("num_tokens", [](EncoderItem& item) { item.num_tokens = 3; });
}

TEST(media_must_fit_the_prompt_and_the_model) {
  DecoderConfig model;
  const EncoderConfig encoder = small_encoder();
  const EncoderBudget budget{.rows = 4, .cache_rows = 2};
  const auto item = std::make_shared<const EncoderItem>(valid_item());
  const auto check_media = [&](const MediaInput& media, const EncoderConfig* with, const EncoderBudget& within) {
    validate(media, 10, model, with, within, 100);
  };
  check_media({.spans = {{3, item}, {5, item}}, .positions = {}}, &encoder, budget);
  check_media({}, nullptr, {});
  const auto refused = [&](const char* part, const MediaInput& media, const EncoderConfig* with,
                           const EncoderBudget& within) {
    EXPECT_ERROR(check_media(media, with, within), ErrorCode::kInvalidArgument, part);
  };
  refused("takes no pictures", {.spans = {{3, item}}, .positions = {}}, nullptr, budget);
  refused("in order", {.spans = {{3, item}, {4, item}}, .positions = {}}, &encoder, budget);
  refused("inside the prompt", {.spans = {{9, item}}, .positions = {}}, &encoder, budget);
  refused("inside the prompt", {.spans = {{-1, item}}, .positions = {}}, &encoder, budget);
  refused("max_encoder_patches", {.spans = {{3, item}}, .positions = {}}, &encoder, {.rows = 3, .cache_rows = 2});
  refused("encoder_cache_bytes", {.spans = {{3, item}}, .positions = {}}, &encoder, {.rows = 4, .cache_rows = 1});
  refused("positions", {.spans = {}, .positions = std::vector<int32_t>(30)}, &encoder, budget);
  model.ropes = {{.dim = 4, .inv_freq = {1.0, 0.1}, .mrope_section = {1, 1, 0}}};
  check_media({.spans = {}, .positions = std::vector<int32_t>(30, 99)}, &encoder, budget);
  refused("positions", {.spans = {}, .positions = std::vector<int32_t>(10)}, &encoder, budget);
  refused("positions", {.spans = {}, .positions = std::vector<int32_t>(30, -1)}, &encoder, budget);
  EXPECT_ERROR(check_media({.spans = {}, .positions = std::vector<int32_t>(30, 100)}, &encoder, budget),
               ErrorCode::kPromptTooLong, "session_len");
}

}  // namespace
}  // namespace turbomind::test
