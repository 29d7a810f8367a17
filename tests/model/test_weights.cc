// SPDX-License-Identifier: Apache-2.0
//
// Binding of weights by name, cutting them for ranks, and the memory a decoder reports. No maths: the null plug-in.
#include <algorithm>
#include <cstring>

#include "model/tiny_model.h"
#include "support/null_backend.h"
#include "support/test.h"
#include "turbomind/layers/weight_slice.h"
#include "turbomind/models/decoder.h"

namespace turbomind::test {
namespace {

struct Fixture {
  explicit Fixture(TinyModel tiny = tiny_llama(), const Config& settings = {})
      : null(TM_PLUGIN_NULL), model(std::move(tiny)), device(null.plugin(), 0, settings), stream(device) {}

  Decoder decoder() { return Decoder(model.config, options, device, stream); }
  const WeightSource& source(const std::string& name) const {
    return *std::find_if(model.checkpoint.begin(), model.checkpoint.end(),
                         [&](const WeightSource& s) { return s.name == name; });
  }

  NullBackend null;
  TinyModel model;
  Device device;
  Stream stream;
  DecoderOptions options{.kv_block_size = 16, .max_tokens = 32, .max_seqs = 2, .max_logits_rows = 2, .max_context = 64};
};

TEST(a_decoder_names_the_weights_it_needs) {
  for (TinyModel model : {tiny_llama(), tiny_qwen2(), tiny_gemma3(), tiny_medley()}) {
    model.config.logit_softcap = 0;
    Fixture f(model);
    std::vector<std::string> names;
    for (const WeightSource& source : model.checkpoint) names.push_back(source.name);
    std::sort(names.begin(), names.end());
    EXPECT(f.decoder().weight_names() == names);
  }
}

TEST(a_model_that_needs_what_the_backend_lacks_is_refused) {
  Fixture f(tiny_medley());
  EXPECT_ERROR(f.decoder(), ErrorCode::kUnsupported, "logit_softcap: expected 0, as the null backend lacks the op");
  Fixture pictures;
  pictures.model.config.bidirectional_media = true;
  EXPECT_ERROR(pictures.decoder(), ErrorCode::kUnsupported, "bidirectional_media: expected false, as attention of the");
}

TEST(weight_errors_name_the_weight_expected_and_found) {
  Fixture f;
  Decoder decoder(f.model.config, f.options, f.device, f.stream);
  const auto expect_refused = [&](const WeightSource& source, const std::string& part) {
    EXPECT_ERROR(decoder.load_weight(source), ErrorCode::kInvalidArgument, part);
  };
  WeightSource source = f.source("layers.1.k_proj");
  source.name = "layers.7.k_proj";
  expect_refused(source, "weight layers.7.k_proj: expected one of the model's 29 weights, found an unknown name");
  source = f.source("layers.1.k_proj");
  std::swap(source.rows, source.cols);
  source.rows -= 1;
  expect_refused(source, "weight layers.1.k_proj: expected shape [64, 64], found [63, 64]");
  source = f.source("layers.1.k_proj");
  source.bytes -= 4;
  expect_refused(source, "weight layers.1.k_proj: data: expected 16384 bytes, found 16380");
  source = f.source("layers.1.k_proj");
  source.format = TM_WEIGHT_GGUF_Q4_K;
  expect_refused(source, "weight layers.1.k_proj: weight format gguf_q4_k: expected a positive multiple of 256");
  source = f.source("final_norm");
  source.format = TM_WEIGHT_INT8_CHANNEL;
  source.bytes = 64;
  expect_refused(source, "weight final_norm: scales: expected an array");
  decoder.load_weight(f.source("layers.1.k_proj"));
  expect_refused(f.source("layers.1.k_proj"), "weight layers.1.k_proj: expected once, found a second time");
}

TEST(missing_weights_are_listed) {
  Fixture f;
  Decoder decoder(f.model.config, f.options, f.device, f.stream);
  EXPECT_ERROR(decoder.finish_loading(), ErrorCode::kInvalidArgument, "found 29 missing: embed_tokens, final_norm");
  for (const WeightSource& source : f.model.checkpoint) {
    if (source.name != "layers.2.up_proj") decoder.load_weight(source);
  }
  EXPECT_ERROR(decoder.finish_loading(), ErrorCode::kInvalidArgument, "found 1 missing: layers.2.up_proj");
  decoder.load_weight(f.source("layers.2.up_proj"));
  decoder.finish_loading();
}

TEST(a_failed_weight_can_be_loaded_again) {
  Fixture f;
  Decoder decoder(f.model.config, f.options, f.device, f.stream);
  decoder.load_weight(f.source("layers.0.q_proj"));
  decoder.load_weight(f.source("layers.0.k_proj"));
  f.null.fail("weight_pack", 1, TM_OUT_OF_MEMORY);
  EXPECT_ERROR(decoder.load_weight(f.source("layers.0.v_proj")), ErrorCode::kOutOfMemory, "weight layers.0.v_proj: ");
  decoder.load_weight(f.source("layers.0.v_proj"));
}

TEST(sources_are_released_once_packed) {
  Fixture f;
  std::weak_ptr<const void> owner = f.source("embed_tokens").owner;
  Decoder decoder(f.model.config, f.options, f.device, f.stream);
  decoder.load_weight(f.source("embed_tokens"));
  f.model.checkpoint.clear();
  EXPECT(owner.expired());
}

TEST(neighbours_of_one_format_are_packed_together) {
  const auto packs = [](const TinyModel& model) {
    Fixture f(model);
    Decoder decoder(f.model.config, f.options, f.device, f.stream);
    for (const char* name : {"layers.0.v_proj", "layers.0.q_proj", "layers.0.k_proj"}) {
      decoder.load_weight(f.source(name));
    }
    return f.null.count("weight_pack");
  };
  EXPECT_EQ(packs(tiny_llama()), 1);
  EXPECT_EQ(packs(tiny_llama(MatrixFormats::kMixed)), 2);
}

TEST(memory_is_reported_before_the_pool_is_sized) {
  Fixture f;
  Decoder decoder(f.model.config, f.options, f.device, f.stream);
  for (const WeightSource& source : f.model.checkpoint) decoder.load_weight(source);
  const uint64_t before = f.device.memory_info().free_bytes;
  decoder.finish_loading();
  EXPECT_EQ(before - f.device.memory_info().free_bytes, decoder.activation_bytes());
  const size_t pools = decoder.kv_pool_bytes(100);
  const size_t starting_pools = decoder.kv_pool_bytes(1);
  decoder.allocate_kv(100);
  EXPECT_EQ(before - f.device.memory_info().free_bytes, decoder.activation_bytes() + pools - starting_pools);
  EXPECT_ERROR(decoder.allocate_kv(int64_t{1} << 30), ErrorCode::kOutOfMemory, "");
  decoder.allocate_kv(50);
}

TEST(steps_of_equal_length_use_equal_addresses) {
  Fixture f;
  Decoder decoder(f.model.config, f.options, f.device, f.stream);
  for (const WeightSource& source : f.model.checkpoint) decoder.load_weight(source);
  Plan plan(f.device, {.max_tokens = 64, .max_seqs = 2, .max_blocks_per_seq = 4, .block_size = 16});
  const Buffer ids(f.device, 32 * sizeof(int32_t));
  f.stream.memset(ids.data(), 0, ids.bytes());
  const auto run = [&](int32_t count) {
    const int32_t boundaries[] = {0, count};
    const int32_t context = count;
    const int32_t blocks[] = {0, 1, 2, 3};
    plan.update(f.stream, {.num_seqs = 1,
                           .num_tokens = count,
                           .cu_seqlens_q = boundaries,
                           .context_lens = &context,
                           .block_table = blocks,
                           .block_table_stride = 4,
                           .max_q_len = count});
    const Tensor tokens = make_tensor(ids.data(), TM_I32, {count});
    return decoder.forward({.token_ids = tokens, .positions = tokens, .plan = &plan}).data;
  };
  EXPECT_ERROR(run(4), ErrorCode::kInternal, "expected after finish_loading()");
  decoder.finish_loading();
  decoder.allocate_kv(4);
  const uint64_t free_bytes = f.device.memory_info().free_bytes;
  const void* first = run(32);
  run(5);
  EXPECT_EQ(run(32), first);
  EXPECT_EQ(f.device.memory_info().free_bytes, free_bytes);
  EXPECT_ERROR(run(33), ErrorCode::kInvalidArgument, "token_ids: expected at most 32 rows, found 33");
}

TEST(config_errors_name_the_field) {
  const auto expect_refused = [](const std::function<void(DecoderConfig&)>& spoil, const std::string& part) {
    Fixture f;
    spoil(f.model.config);
    EXPECT_ERROR(f.decoder(), ErrorCode::kInvalidArgument, part);
  };
  expect_refused([](DecoderConfig& c) { c.layers.clear(); }, "layers: expected at least one, found 0");
  expect_refused([](DecoderConfig& c) { c.layers[1].attention.rope = 1; },
                 "layers[1].attention.rope: expected an index into ropes, found 1");
  expect_refused([](DecoderConfig& c) { c.layers[2].attention.num_kv_heads = 3; },
                 "layers[2].attention.num_heads: expected a multiple of num_kv_heads, found 4");
  expect_refused([](DecoderConfig& c) { c.ropes[0].inv_freq.pop_back(); },
                 "ropes[0].inv_freq: expected dim / 2 values, found 15");
  expect_refused([](DecoderConfig& c) { c.layers[0].ffn.intermediate_size = 0; },
                 "layers[0].ffn.intermediate_size: expected a positive number, found 0");
}

// A source with memory behind it, and where a slice begins in it.
struct SourceMemory {
  explicit SourceMemory(WeightSource source) : source(std::move(source)), codes(1 << 16), scales(1 << 12) {
    this->source.data = codes.data();
    this->source.scales = scales.data();
  }

  int64_t code_offset(const tm_weight_part& part) const {
    return static_cast<const uint8_t*>(part.data) - codes.data();
  }
  int64_t scale_offset(const tm_weight_part& part) const {
    return static_cast<const uint8_t*>(part.scales) - scales.data();
  }

  WeightSource source;
  std::vector<uint8_t> codes;
  std::vector<uint8_t> scales;
};

TEST(ranks_share_heads_and_features) {
  EXPECT_EQ(equal_share("num_heads", 12, 2, 4).begin, 6);
  EXPECT_EQ(equal_share("num_heads", 12, 2, 4).count, 3);
  EXPECT_ERROR(equal_share("num_heads", 9, 0, 2), ErrorCode::kInvalidArgument,
               "num_heads: expected a multiple of tp = 2, found 9");
  for (const int rank : {0, 1, 2, 3}) {
    EXPECT_EQ(kv_head_share(2, rank, 4).begin, rank / 2);
    EXPECT_EQ(kv_head_share(2, rank, 4).count, 1);
  }
  EXPECT_EQ(kv_head_share(8, 1, 4).begin, 2);
  EXPECT_ERROR(kv_head_share(3, 0, 4), ErrorCode::kInvalidArgument, "num_kv_heads: expected a divisor of tp = 4");
}

TEST(scales_and_zeros_are_as_long_as_the_format_says) {
  SourceMemory memory(
      {.format = TM_WEIGHT_INT4_GROUP, .rows = 8, .cols = 256, .scale_dtype = TM_F16, .group_size = 64});
  WeightSource& source = memory.source;
  source.bytes = 8 * 128;
  source.scale_bytes = 8 * 4 * 2;
  source.zeros = memory.scales.data();
  source.zero_bytes = 8 * 4;
  check_source_bytes(source);
  source.zero_bytes -= 1;
  EXPECT_ERROR(check_source_bytes(source), ErrorCode::kInvalidArgument, "zeros: expected 32 bytes, found 31");
  source.scale_bytes -= 1;
  EXPECT_ERROR(check_source_bytes(source), ErrorCode::kInvalidArgument, "scales: expected 64 bytes, found 63");
  source.group_size = 0;
  EXPECT_ERROR(check_source_bytes(source), ErrorCode::kInvalidArgument, "group_size: expected a positive count");
}

TEST(slices_start_at_their_rows_and_blocks) {
  const SourceMemory q4k({.format = TM_WEIGHT_GGUF_Q4_K, .rows = 8, .cols = 1024});
  const tm_weight_part part = slice_weight(q4k.source, {2, 3}, {512, 256});
  EXPECT_EQ(q4k.code_offset(part), 2 * 4 * 144 + 2 * 144);
  EXPECT_EQ(part.rows, 3);
  EXPECT_EQ(part.row_stride_bytes, 4 * 144);
  EXPECT(part.scales == nullptr);
  EXPECT_ERROR(slice_weight(q4k.source, {0, 8}, {128, 256}), ErrorCode::kInvalidArgument,
               "format gguf_q4_k can be cut every 256 columns");

  const SourceMemory int4(
      {.format = TM_WEIGHT_INT4_GROUP, .rows = 8, .cols = 256, .scale_dtype = TM_F16, .group_size = 64});
  const tm_weight_part groups = slice_weight(int4.source, {4, 4}, {128, 128});
  EXPECT_EQ(int4.code_offset(groups), 4 * 128 + 64);
  EXPECT_EQ(int4.scale_offset(groups), (4 * 4 + 2) * 2);
  EXPECT_EQ(groups.scale_stride_bytes, 8);
  EXPECT_ERROR(slice_weight(int4.source, {0, 8}, {32, 64}), ErrorCode::kInvalidArgument, "every 64 columns");

  const SourceMemory fp8({.format = TM_WEIGHT_FP8_BLOCK128, .rows = 320, .cols = 256, .scale_dtype = TM_F32});
  const tm_weight_part tiles = slice_weight(fp8.source, {128, 192}, {128, 128});
  EXPECT_EQ(fp8.code_offset(tiles), 128 * 256 + 128);
  EXPECT_EQ(fp8.scale_offset(tiles), (1 * 2 + 1) * 4);
  EXPECT_ERROR(slice_weight(fp8.source, {160, 160}, {0, 256}), ErrorCode::kInvalidArgument, "every 128 rows");
}

}  // namespace
}  // namespace turbomind::test
