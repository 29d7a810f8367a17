// SPDX-License-Identifier: Apache-2.0
//
// Faults of the device below an encoder. On the null plug-in a text's vector has one number that means something, so
// the model has one column, and every vector of length 1 is 1.
#include "engine/engine_fixture.h"
#include "turbomind/engine/embedder.h"

namespace turbomind::test {
namespace {

using Texts = std::vector<std::vector<int32_t>>;

TextEncoderConfig one_column() {
  return {.vocab_size = kVocab,
          .hidden_size = 1,
          .num_layers = 1,
          .num_heads = 1,
          .intermediate_size = 1,
          .max_positions = 32,
          .norm_eps = 1e-6F};
}

struct EmbedderFixture {
  explicit EmbedderFixture(const char* host_accessible) : embedder(one_column(), options(host_accessible)) {
    static const std::vector<float> zeros(kVocab, 0.0F);
    for (const char* name :
         {"embed_tokens",       "embed_positions",         "embed_norm",        "embed_norm.bias",
          "layers.0.q_proj",    "layers.0.q_proj.bias",    "layers.0.k_proj",   "layers.0.k_proj.bias",
          "layers.0.v_proj",    "layers.0.v_proj.bias",    "layers.0.o_proj",   "layers.0.o_proj.bias",
          "layers.0.attn_norm", "layers.0.attn_norm.bias", "layers.0.up_proj",  "layers.0.up_proj.bias",
          "layers.0.down_proj", "layers.0.down_proj.bias", "layers.0.ffn_norm", "layers.0.ffn_norm.bias"}) {
      const std::string base = name;
      const int64_t rows = base == "embed_tokens" ? kVocab : base == "embed_positions" ? 32 : 1;
      embedder.load_weight({.name = "encoder." + base,
                            .format = TM_WEIGHT_F32,
                            .rows = rows,
                            .cols = 1,
                            .data = zeros.data(),
                            .bytes = static_cast<size_t>(rows) * sizeof(float)});
    }
    embedder.start();
  }

  static EngineOptions options(const char* host_accessible) {
    return null_options({{"host_accessible", host_accessible}, {"asynchronous", "1"}});
  }

  void expect_healthy() {
    std::vector<float> rows(3, 0.0F);
    embedder.embed({{1, 2, 3}, {4}, {5, 6}}, rows.data());
    for (const float value : rows) EXPECT_EQ(value, 1.0F);
  }

  void expect_fault(ErrorCode code) {
    float row = 0.0F;
    EXPECT_ERROR(embedder.embed({{1, 2, 3}}, &row), code, "injected fault");
  }

  NullBackend null{TM_PLUGIN_NULL};
  Embedder embedder;
};

TEST(fault_of_an_encoder_ends_its_call_only) {
  for (const char* call :
       {"embedding", "layer_norm", "linear", "attention_dense", "add", "copy_async", "plan_update"}) {
    EmbedderFixture fixture("0");
    fixture.null.fail(call, 1, TM_DEVICE_ERROR);
    fixture.expect_fault(ErrorCode::kDevice);
    fixture.expect_healthy();
    EXPECT_EQ(fixture.embedder.num_recoveries(), 0);
  }
}

TEST(lost_device_of_an_encoder_is_opened_again) {
  EmbedderFixture fixture("0");
  fixture.expect_healthy();
  const int64_t packed = fixture.null.count("weight_pack");
  fixture.null.fail("attention_dense", 1, TM_DEVICE_LOST);
  fixture.expect_fault(ErrorCode::kDeviceLost);
  fixture.expect_healthy();
  EXPECT(packed > 0);
  EXPECT_EQ(fixture.null.count("weight_pack"), 2 * packed);
  EXPECT_EQ(fixture.null.count("context_create"), 2);
  EXPECT_EQ(fixture.embedder.num_recoveries(), 1);
  EXPECT(!fixture.embedder.is_lost());
}

TEST(device_of_an_encoder_that_stays_lost_is_given_up) {
  EmbedderFixture fixture("0");
  for (int64_t nth = 1; nth <= 3; ++nth) fixture.null.fail("context_create", nth, TM_DEVICE_LOST);
  fixture.null.fail("add", 1, TM_DEVICE_LOST);
  for (int call = 0; call < 2; ++call) fixture.expect_fault(ErrorCode::kDeviceLost);
  EXPECT_EQ(fixture.null.count("context_create"), 4);
  EXPECT(fixture.embedder.is_lost());
}

TEST(device_of_an_encoder_that_is_lost_in_every_call_is_given_up) {
  EmbedderFixture fixture("0");
  for (int64_t nth = 1; nth <= 4; ++nth) fixture.null.fail("add", nth, TM_DEVICE_LOST);
  for (int call = 0; call < 4; ++call) fixture.expect_fault(ErrorCode::kDeviceLost);
  EXPECT_EQ(fixture.embedder.num_recoveries(), 3);
  EXPECT(fixture.embedder.is_lost());
}

TEST(host_of_an_encoder_is_not_opened_again) {
  EmbedderFixture fixture("1");
  fixture.null.fail("add", 1, TM_DEVICE_LOST);
  for (int call = 0; call < 2; ++call) fixture.expect_fault(ErrorCode::kDeviceLost);
  EXPECT(fixture.embedder.is_lost());
}

}  // namespace
}  // namespace turbomind::test
