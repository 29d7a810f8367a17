// SPDX-License-Identifier: Apache-2.0
#include "turbomind/models/text_encoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "turbomind/layers/embedding.h"
#include "turbomind/layers/step_memory.h"
#include "turbomind/models/text_encoder_layer.h"

namespace turbomind {
namespace {

TextEncoderConfig validated(TextEncoderConfig config) {
  validate(config);
  return config;
}

// The mean of the rows, or the first, scaled to length 1. rows: [count, size].
void pool(const float* rows, int64_t count, int64_t size, float* out) {
  std::vector<double> sum(static_cast<size_t>(size));
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t i = 0; i < size; ++i) sum[static_cast<size_t>(i)] += static_cast<double>(rows[row * size + i]);
  }
  const double squares = std::inner_product(sum.begin(), sum.end(), sum.begin(), 0.0);
  const double scale = squares > 0.0 ? 1.0 / std::sqrt(squares) : 0.0;
  std::transform(sum.begin(), sum.end(), out, [scale](double value) { return static_cast<float>(value * scale); });
}

}  // namespace

void validate(const TextEncoderConfig& config) {
  const auto positive = [](const char* field, int32_t value) {
    check(value > 0, ErrorCode::kInvalidArgument, field, ": expected a positive number, found ", value);
  };
  positive("vocab_size", config.vocab_size);
  positive("hidden_size", config.hidden_size);
  positive("num_layers", config.num_layers);
  positive("num_heads", config.num_heads);
  positive("intermediate_size", config.intermediate_size);
  positive("max_positions", config.max_positions);
  check(config.hidden_size % config.num_heads == 0, ErrorCode::kInvalidArgument,
        "num_heads: expected a divisor of hidden_size = ", config.hidden_size, ", found ", config.num_heads);
  check(config.norm_eps > 0.0F, ErrorCode::kInvalidArgument, "norm_eps: expected a positive number, found ",
        config.norm_eps);
}

struct TextEncoder::Impl {
  Impl(TextEncoderConfig encoder_config, TextEncoderOptions encoder_options, const Device& on_device,
       Stream& on_stream);

  void finish_loading();
  // f32 [T, hidden] on the device.
  Tensor forward(Ops& step_ops, Arena& step_arena, const Tensor& ids, const Tensor& positions) const;

  const TextEncoderConfig config;
  const TextEncoderOptions options;
  const Device& device;
  Stream& stream;
  WeightStore weights;
  LayerContext context;
  Embedding tokens;
  Embedding positions;
  Norm norm;
  std::vector<std::unique_ptr<TextEncoderLayer>> layers;
  StepMemory memory;
  Plan plan;
  Buffer rows;  // host f32 [max_tokens, hidden]; from finish_loading() on
};

TextEncoder::Impl::Impl(TextEncoderConfig encoder_config, TextEncoderOptions encoder_options, const Device& on_device,
                        Stream& on_stream)
    : config(validated(std::move(encoder_config))),
      options(encoder_options),
      device(on_device),
      stream(on_stream),
      weights(device, stream, options.int8_weights),
      context(encoder_context(device, stream, weights, options.activation_dtype, options.compute)),
      tokens(context, "encoder.embed_tokens", config.vocab_size, config.hidden_size),
      positions(context, "encoder.embed_positions", config.max_positions, config.hidden_size),
      norm(context, "encoder.embed_norm", NormKind::kLayerNorm, config.hidden_size, config.norm_eps),
      memory(device, stream),
      plan(device, {.max_tokens = options.max_tokens, .max_seqs = options.max_tokens}) {
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const std::string prefix = "encoder.layers." + std::to_string(i) + ".";
    layers.push_back(std::make_unique<TextEncoderLayer>(context, prefix, config));
  }
}

void TextEncoder::Impl::finish_loading() {
  weights.check_complete();
  memory.reserve([this](Ops& ops, Arena& arena) {
    Arena inputs;
    const Tensor ids = inputs.allocate("encoder_ids", TM_I32, {options.max_tokens});
    const Tensor places = inputs.allocate("encoder_places", TM_I32, {options.max_tokens});
    forward(ops, arena, ids, places);
    return inputs.peak();
  });
  rows = Buffer(device, static_cast<size_t>(options.max_tokens * config.hidden_size) * sizeof(float),
                TM_MEMORY_PINNED_HOST);
}

Tensor TextEncoder::Impl::forward(Ops& step_ops, Arena& step_arena, const Tensor& ids,
                                  const Tensor& token_positions) const {
  const StepContext step{
      .ops = step_ops, .arena = step_arena, .comm = nullptr, .plan = plan, .positions = token_positions};
  const int64_t num_rows = ids.shape[0];
  const Tensor x = step_arena.allocate("encoder_hidden", options.activation_dtype, {num_rows, config.hidden_size});
  {
    const Arena::Scope scope(step_arena);
    const Tensor place = step_arena.allocate("encoder_positions", x.dtype, {num_rows, config.hidden_size});
    tokens.forward(step, ids, 1.0F, x);
    positions.forward(step, token_positions, 1.0F, place);
    step_ops.add({.a = x, .b = place, .out = x});
    norm.forward(step_ops, x, x);
  }
  for (const auto& layer : layers) layer->forward(step, x);
  if (x.dtype == TM_F32) return x;
  const Tensor wide = step_arena.allocate("encoder_out", TM_F32, {num_rows, config.hidden_size});
  step_ops.cast({.in = x, .out = wide});
  return wide;
}

TextEncoder::TextEncoder(TextEncoderConfig config, TextEncoderOptions options, const Device& device, Stream& stream)
    : impl_(std::make_unique<Impl>(std::move(config), options, device, stream)) {}

TextEncoder::~TextEncoder() = default;

std::vector<std::string> TextEncoder::weight_names() const { return impl_->weights.names(); }

void TextEncoder::load_weight(const WeightSource& source) { impl_->weights.load(source); }

void TextEncoder::finish_loading() { impl_->finish_loading(); }

void TextEncoder::encode(std::span<const Text> texts, float* out) {
  StepMemory& memory = impl_->memory;
  check(memory.is_reserved(), ErrorCode::kInternal, "encode: expected after finish_loading()");
  if (texts.empty()) return;
  std::vector<int32_t> ends{0};
  int32_t longest = 0;
  for (const Text& text : texts) {
    const auto length = static_cast<int32_t>(text.size());
    ends.push_back(ends.back() + length);
    longest = std::max(longest, length);
  }
  const int64_t num_tokens = ends.back();
  check(num_tokens <= impl_->options.max_tokens, ErrorCode::kInternal, "encode: expected at most ",
        impl_->options.max_tokens, " tokens, found ", num_tokens);
  memory.inputs().begin(2 * align_up(static_cast<size_t>(num_tokens) * sizeof(int32_t)));
  auto [ids, device_ids] = memory.inputs().reserve<int32_t>(TM_I32, {num_tokens});
  auto [places, device_places] = memory.inputs().reserve<int32_t>(TM_I32, {num_tokens});
  for (const Text& text : texts) {
    ids = std::copy(text.begin(), text.end(), ids);
    std::iota(places, places + text.size(), 0);
    places += text.size();
  }
  memory.inputs().send();
  impl_->plan.update(impl_->stream, {.num_seqs = static_cast<int64_t>(texts.size()),
                                     .num_tokens = num_tokens,
                                     .cu_seqlens_q = ends.data(),
                                     .max_q_len = longest});
  memory.arena().reset();
  const Tensor hidden = impl_->forward(memory.ops(), memory.arena(), device_ids, device_places);
  impl_->stream.copy(impl_->rows.data(), hidden.data, nbytes(hidden), TM_DEVICE_TO_HOST);
  impl_->stream.synchronize();
  const auto* rows = static_cast<const float*>(impl_->rows.data());
  const int64_t size = impl_->config.hidden_size;
  for (size_t i = 0; i < texts.size(); ++i) {
    const int64_t count = impl_->config.pools_first ? 1 : ends[i + 1] - ends[i];
    pool(rows + ends[i] * size, count, size, out + static_cast<int64_t>(i) * size);
  }
}

size_t TextEncoder::weight_bytes() const { return impl_->weights.device_bytes(); }

size_t TextEncoder::activation_bytes() const { return impl_->memory.bytes(); }

const TextEncoderConfig& TextEncoder::config() const { return impl_->config; }
const TextEncoderOptions& TextEncoder::options() const { return impl_->options; }

}  // namespace turbomind
