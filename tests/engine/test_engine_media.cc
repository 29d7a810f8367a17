// SPDX-License-Identifier: Apache-2.0
//
// Pictures in a running engine. On the null plug-in a placeholder's row is a function of its patch's first value, so a
// token fed from a wrong row, a stale embedding or another request's picture changes the answer.
#include <chrono>
#include <memory>
#include <thread>

#include "engine/engine_fixture.h"

namespace turbomind::test {
namespace {

constexpr int64_t kPatches = 24;

EncoderConfig null_encoder() {
  EncoderConfig config;
  config.patch_dim = 2;
  config.hidden_size = 8;
  config.num_layers = 1;
  config.num_heads = 2;
  config.intermediate_size = 8;
  config.out_hidden_size = 8;
  config.qkv_bias = config.o_bias = config.ffn_bias = false;
  config.projector.bias = false;
  return config;
}

std::vector<WeightSource> null_vision_checkpoint() {
  static const std::vector<float> zeros(64, 0.0F);
  std::vector<WeightSource> checkpoint = null_checkpoint();
  const auto add = [&](const std::string& name, int64_t rows, int64_t cols) {
    WeightSource source;
    source.name = "vision." + name;
    // Neighbours of one format are packed into one matrix, of which the null plug-in fills the first column only.
    const bool half = name == "layers.0.k_proj";
    source.format = half ? TM_WEIGHT_F16 : TM_WEIGHT_F32;
    source.rows = rows;
    source.cols = cols;
    source.data = zeros.data();
    source.bytes = static_cast<size_t>(rows * cols) * (half ? 2 : 4);
    checkpoint.push_back(std::move(source));
  };
  add("patch_proj", 8, 2);
  for (const char* name : {"norm1", "norm1.bias", "norm2", "norm2.bias"}) add(std::string("layers.0.") + name, 8, 1);
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}) {
    add(std::string("layers.0.") + name, 8, 8);
  }
  add("projector.linear_1", 8, 8);
  return checkpoint;
}

// A picture of kPatches patches and as many tokens; seed: its content.
std::shared_ptr<const EncoderItem> picture(int32_t seed) {
  auto pixels = std::make_shared<std::vector<float>>();
  for (int64_t i = 0; i < 2 * kPatches; ++i) pixels->push_back(static_cast<float>(seed * 1000 + i));
  auto item = std::make_shared<EncoderItem>();
  item->digest.assign(32, static_cast<char>(seed));
  item->num_rows = item->num_tokens = kPatches;
  item->pixels = pixels->data();
  item->pixel_bytes = pixels->size() * sizeof(float);
  item->owner = pixels;
  item->segments = {kPatches};
  return item;
}

struct Question {
  std::vector<int32_t> prompt;
  MediaInput media;
};

// Text with a picture in its middle; the text is the same for every picture.
Question question(int32_t seed, int64_t begin = 20) {
  std::vector<int32_t> prompt = make_prompt(80, 3);
  std::fill_n(prompt.begin() + begin, kPatches, 5);
  return {std::move(prompt), {.spans = {{begin, picture(seed)}}, .positions = {}}};
}

class VisionFixture : public NullHooks {
 public:
  explicit VisionFixture(const EngineOptions& options) : engine(null_model(), options, null_encoder()) {
    for (const WeightSource& source : null_vision_checkpoint()) engine.load_weight(source);
    engine.start();
  }

  std::vector<int32_t> ask(const Question& asked) { return finish({submit(asked)}).front(); }

  uint64_t submit(const Question& asked) { return engine.submit(asked.prompt, greedy(12), asked.media); }

  // Answers in the order of the ids.
  std::vector<std::vector<int32_t>> finish(const std::vector<uint64_t>& ids) {
    std::vector<std::vector<int32_t>> ordered;
    for (const uint64_t id : ids) {
      wait([&] { return ended.count(id) > 0; });
      ordered.push_back(answers[id]);
    }
    return ordered;
  }

  // Reads outputs until it is so; fails if that takes too long.
  void wait(const std::function<bool()>& is_so) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!is_so() && std::chrono::steady_clock::now() < deadline) {
      for (const Output& output : engine.poll(std::chrono::milliseconds(1))) {
        auto& answer = answers[output.request_id];
        answer.insert(answer.end(), output.token_ids.begin(), output.token_ids.end());
        if (output.finished) ended[output.request_id] = output.finish_reason;
        failed |= output.finish_reason == FinishReason::kError;
      }
    }
    EXPECT(is_so());
  }

  // Submits a picture and waits until its encode is held.
  uint64_t submit_held(const Question& asked) {
    null.hold("attention_dense");
    const uint64_t id = submit(asked);
    wait([&] { return engine.stats().media_encoded == 1; });
    return id;
  }

  Engine engine;
  std::map<uint64_t, std::vector<int32_t>> answers;
  std::map<uint64_t, FinishReason> ended;
  bool failed = false;
};

std::vector<int32_t> answer_alone(int32_t seed, int64_t begin = 20) {
  EngineOptions options = null_options();
  options.enable_prefix_caching = false;
  return VisionFixture(options).ask(question(seed, begin));
}

TEST(equal_texts_with_unlike_pictures_have_unlike_answers) {
  const std::vector<int32_t> first = answer_alone(1);
  const std::vector<int32_t> second = answer_alone(2);
  EXPECT(first != second);
  // One after the other and with a warm prefix cache: neither sees the other's picture.
  VisionFixture fixture(null_options());
  for (const int32_t seed : {1, 2, 1, 2}) {
    EXPECT_TOKENS(fixture.ask(question(seed)), seed == 1 ? first : second);
  }
  EXPECT_EQ(fixture.engine.stats().media_encoded, 2);
}

TEST(a_picture_that_the_prefix_cache_holds_is_not_encoded) {
  EngineOptions options = null_options();
  // Room for one picture: the second takes the place of the first one's embeddings.
  options.encoder_cache_bytes = kPatches * 8 * 4;
  VisionFixture fixture(options);
  const std::vector<int32_t> first = fixture.ask(question(1));
  fixture.ask(question(2, 30));
  EXPECT_EQ(fixture.engine.stats().media_encoded, 2);
  EXPECT_TOKENS(fixture.ask(question(1)), first);
  EXPECT_EQ(fixture.engine.stats().media_encoded, 2);
}

TEST(answers_do_not_depend_on_chunks_crowds_or_room) {
  std::vector<std::vector<int32_t>> expected;
  for (int32_t seed = 0; seed < 6; ++seed) expected.push_back(answer_alone(seed));
  for (const char* asynchronous : {"0", "1"}) {
    EngineOptions options = null_options({{"tokens", "context"}, {"asynchronous", asynchronous}});
    options.max_num_batched_tokens = 9;  // cuts inside pictures
    options.max_encoder_patches = kPatches;
    options.encoder_cache_bytes = 2 * kPatches * 8 * 4;
    options.num_kv_blocks = 14;  // preempts
    VisionFixture fixture(options);
    std::vector<uint64_t> ids;
    for (int32_t seed = 0; seed < 6; ++seed) ids.push_back(fixture.submit(question(seed)));
    const std::vector<std::vector<int32_t>> answers = fixture.finish(ids);
    for (size_t i = 0; i < ids.size(); ++i) EXPECT_TOKENS(answers[i], expected[i]);
  }
}

TEST(a_fault_while_encoding_ends_only_its_step) {
  const std::vector<int32_t> expected = answer_alone(1);
  for (const char* call : {"attention_dense", "layer_norm", "scatter_rows", "linear"}) {
    VisionFixture fixture(null_options());
    fixture.null.fail(call, 1, TM_DEVICE_ERROR);
    fixture.ask(question(1));
    EXPECT(fixture.failed);
    // What the failed step was to write is not taken for embeddings.
    EXPECT_TOKENS(fixture.ask(question(1)), expected);
  }
}

// Streams that run beside each other, on a device whose memory the host cannot reach.
EngineOptions overlapped_options() {
  return null_options({{"tokens", "context"}, {"asynchronous", "1"}, {"host_accessible", "0"}});
}

TEST(others_decode_while_a_picture_is_encoded) {
  const std::vector<int32_t> expected = answer_alone(1);
  VisionFixture fixture(overlapped_options());
  const std::vector<int32_t> prompt = make_prompt(30, 7);
  const uint64_t before = fixture.engine.submit(prompt, greedy(200), {});
  fixture.wait([&] { return !fixture.answers[before].empty(); });
  const uint64_t asked = fixture.submit_held(question(1));
  // What comes meanwhile is not held up, either.
  const uint64_t meanwhile = fixture.engine.submit(prompt, greedy(20), {});
  EXPECT_TOKENS(fixture.finish({before, meanwhile})[0], predict(prompt, 200));
  EXPECT_TOKENS(fixture.answers[meanwhile], predict(prompt, 20));
  EXPECT_EQ(fixture.null.count("attention_dense"), 0);
  EXPECT(fixture.answers[asked].empty());
  fixture.null.release();
  EXPECT_TOKENS(fixture.finish({asked})[0], expected);
}

TEST(a_request_can_be_cancelled_while_its_picture_is_encoded) {
  const std::vector<int32_t> expected = answer_alone(1);
  VisionFixture fixture(overlapped_options());
  const uint64_t asked = fixture.submit_held(question(1));
  fixture.engine.cancel(asked);
  fixture.finish({asked});
  EXPECT(fixture.ended[asked] == FinishReason::kCancelled);
  fixture.null.release();
  // The embeddings serve who asks next.
  EXPECT_TOKENS(fixture.ask(question(1)), expected);
  EXPECT_EQ(fixture.engine.stats().media_encoded, 1);
}

TEST(a_fault_of_the_encoder_ends_only_those_that_wait_for_it) {
  const std::vector<int32_t> expected = answer_alone(1);
  const std::vector<int32_t> prompt = make_prompt(30, 7);
  for (const char* call : {"attention_dense", "layer_norm"}) {
    VisionFixture fixture(overlapped_options());
    const uint64_t talker = fixture.engine.submit(prompt, greedy(200), {});
    fixture.wait([&] { return !fixture.answers[talker].empty(); });
    const uint64_t asked = fixture.submit_held(question(1));
    fixture.null.fail(call, 1, TM_DEVICE_ERROR);
    fixture.null.release();
    fixture.finish({asked});
    EXPECT(fixture.ended[asked] == FinishReason::kError);
    EXPECT_TOKENS(fixture.finish({talker})[0], predict(prompt, 200));
    EXPECT_TOKENS(fixture.ask(question(1)), expected);
    EXPECT_EQ(fixture.engine.stats().failed_steps, 0);
  }
}

TEST(a_device_lost_by_the_encoder_is_opened_again) {
  const std::vector<int32_t> expected = answer_alone(1);
  VisionFixture fixture(overlapped_options());
  const uint64_t asked = fixture.submit_held(question(1));
  fixture.null.fail("attention_dense", 1, TM_DEVICE_LOST);
  fixture.null.release();
  fixture.finish({asked});
  EXPECT(fixture.ended[asked] == FinishReason::kError);
  EXPECT_TOKENS(fixture.ask(question(1)), expected);
  EXPECT_EQ(fixture.engine.stats().device_recoveries, 1);
}

TEST(a_failed_step_takes_an_encode_on_its_way_along) {
  const std::vector<int32_t> expected = answer_alone(1);
  VisionFixture fixture(overlapped_options());
  const uint64_t asked = fixture.submit_held(question(1));
  fixture.null.fail("sample", 1, TM_DEVICE_ERROR);
  const uint64_t text = fixture.engine.submit(make_prompt(30, 7), greedy(20), {});
  fixture.wait([&] { return fixture.null.count("sample") == 1; });
  fixture.null.release();
  EXPECT_TOKENS(fixture.finish({text, asked})[1], expected);
  EXPECT(fixture.ended[text] == FinishReason::kError);
  EXPECT_EQ(fixture.engine.stats().media_encoded, 2);
}

TEST(a_failed_step_leaves_no_blocks_to_those_that_wait_for_a_picture) {
  const std::vector<int32_t> expected = answer_alone(1, 16);
  VisionFixture fixture(overlapped_options());
  fixture.null.hold("kv_write");
  fixture.null.fail("kv_write", 1, TM_DEVICE_ERROR);
  const uint64_t text = fixture.engine.submit(make_prompt(80, 3), greedy(20), {});
  // Finds the text's first block in the prefix cache, with nothing left to compute before its picture.
  const uint64_t asked = fixture.submit(question(1, 16));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the engine takes it while the step is held
  fixture.null.release();
  EXPECT_TOKENS(fixture.finish({text, asked})[1], expected);
  EXPECT(fixture.ended[text] == FinishReason::kError);
}

TEST(an_engine_may_end_while_a_picture_is_encoded) {
  VisionFixture fixture(overlapped_options());
  const uint64_t asked = fixture.submit_held(question(1));
  fixture.engine.cancel(asked);
  fixture.finish({asked});
  fixture.null.release();
  fixture.engine.stop(Engine::StopMode::kDrain);
  EXPECT_EQ(fixture.null.count("attention_dense"), 1);
}

TEST(a_picture_beyond_the_budget_is_refused_at_submission) {
  EngineOptions options = null_options();
  options.max_encoder_patches = kPatches - 1;
  VisionFixture fixture(options);
  EXPECT_ERROR(fixture.submit(question(1)), ErrorCode::kInvalidArgument, "max_encoder_patches");
}

TEST(a_model_without_eyes_refuses_pictures) {
  EngineFixture fixture(null_options());
  const Question asked = question(1);
  EXPECT_ERROR(fixture.engine.submit(asked.prompt, greedy(1), asked.media), ErrorCode::kInvalidArgument,
               "takes no pictures");
}

}  // namespace
}  // namespace turbomind::test
