// SPDX-License-Identifier: Apache-2.0
#include "vision/encoder/encoder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "turbomind/layers/embedding.h"
#include "turbomind/layers/step_memory.h"
#include "vision/encoder/encoder_batch.h"
#include "vision/encoder/encoder_layer.h"
#include "vision/encoder/projector.h"

namespace turbomind {
namespace {

EncoderConfig validated(EncoderConfig config) {
  validate(config);
  return config;
}

int32_t longest(const std::vector<int32_t>& ends) {
  int32_t length = 1;
  for (size_t i = 1; i < ends.size(); ++i) length = std::max(length, ends[i] - ends[i - 1]);
  return length;
}

}  // namespace

struct Encoder::Impl {
  Impl(EncoderConfig encoder_config, EncoderOptions encoder_options, const Device& on_device, Stream& on_stream);

  Plan make_plan() const;
  void update(Plan& plan, const std::vector<int32_t>& ends);
  void finish_loading();
  Tensor forward(Ops& ops, Arena& arena, const EncoderBatch& batch) const;
  // Patches with their positions: float [rows, hidden].
  void embed(const StepContext& step, const EncoderBatch& batch, const Tensor& out) const;
  // Learned positions, added to x.
  void add_positions(const StepContext& step, const EncoderBatch& batch, const Tensor& x) const;
  // Rows in the order in which they enter the projector, in memory that it may change.
  Tensor reordered(const StepContext& step, const EncoderBatch& batch, const Tensor& x) const;
  // The tokens made of projected rows.
  Tensor select(const StepContext& step, const EncoderBatch& batch, const Tensor& projected) const;

  const EncoderConfig config;
  const EncoderOptions options;
  const Device& device;
  Stream& stream;
  WeightStore weights;
  LayerContext context;
  Linear patch_proj;
  std::optional<Embedding> table;
  std::optional<RopeTable> rope;
  std::optional<Norm> pre_norm;
  std::vector<std::unique_ptr<EncoderLayer>> layers;
  std::optional<Norm> post_norm;
  std::optional<Projector> projector;
  std::vector<std::unique_ptr<Projector>> deepstack;
  std::optional<Embedding> newline;
  StepMemory memory;
  std::optional<Plan> segments;  // from finish_loading() on, as the next
  std::optional<Plan> windows;
};

Encoder::Impl::Impl(EncoderConfig encoder_config, EncoderOptions encoder_options, const Device& on_device,
                    Stream& on_stream)
    : config(validated(std::move(encoder_config))),
      options(encoder_options),
      device(on_device),
      stream(on_stream),
      weights(device, stream, options.int8_weights),
      context(encoder_context(device, stream, weights, options.activation_dtype, options.compute)),
      patch_proj(context, {{"vision.patch_proj", config.hidden_size, whole(config.hidden_size)}}, config.patch_dim,
                 whole(config.patch_dim), config.patch_bias),
      memory(device, stream) {
  check(options.max_rows >= config.projector.merge_size, ErrorCode::kInvalidArgument,
        "vision.max_rows: expected at least ", config.projector.merge_size, ", found ", options.max_rows);
  if (config.table_rows > 0) table.emplace(context, "vision.table", config.table_rows, config.hidden_size);
  if (config.rope) rope.emplace(weights, *config.rope, options.max_rows);
  const auto add_norm = [&](std::optional<Norm>& norm, const char* name) {
    norm.emplace(context, name, config.norm_kind, config.hidden_size, config.norm_eps);
  };
  if (config.pre_norm) add_norm(pre_norm, "vision.pre_norm");
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const std::string prefix = "vision.layers." + std::to_string(i) + ".";
    layers.push_back(std::make_unique<EncoderLayer>(context, prefix, config, rope ? &*rope : nullptr));
  }
  if (config.post_norm) add_norm(post_norm, "vision.post_norm");
  projector.emplace(context, "vision.projector.", config.projector, config.hidden_size, config.out_hidden_size);
  for (int32_t i = 0; i < config.num_deepstack(); ++i) {
    const std::string prefix = "vision.deepstack." + std::to_string(i) + ".";
    deepstack.push_back(
        std::make_unique<Projector>(context, prefix, config.deepstack, config.hidden_size, config.out_hidden_size));
  }
  if (config.newline) newline.emplace(context, "vision.newline", 1, config.out_hidden_size);
}

Plan Encoder::Impl::make_plan() const {
  return Plan(device, {.max_tokens = options.max_rows, .max_seqs = options.max_rows});
}

void Encoder::Impl::update(Plan& plan, const std::vector<int32_t>& ends) {
  plan.update(stream, {.num_seqs = static_cast<int64_t>(ends.size()) - 1,
                       .num_tokens = ends.back(),
                       .cu_seqlens_q = ends.data(),
                       .max_q_len = longest(ends)});
}

void Encoder::Impl::finish_loading() {
  weights.check_complete();
  segments.emplace(make_plan());
  if (config.has_windows()) windows.emplace(make_plan());
  memory.reserve([this](Ops& ops, Arena& arena) {
    Arena inputs;
    forward(ops, arena, largest_batch(config, {.max_rows = options.max_rows}, inputs));
    return inputs.peak();
  });
}

Tensor Encoder::Impl::forward(Ops& step_ops, Arena& step_arena, const EncoderBatch& batch) const {
  step_arena.reset();
  const auto step_with = [&](const Plan& plan) {
    return StepContext{
        .ops = step_ops, .arena = step_arena, .comm = nullptr, .plan = plan, .positions = batch.positions};
  };
  const StepContext step = step_with(*segments);
  const int64_t newline_rows = config.newline ? 1 : 0;
  const Tensor projected = step_arena.allocate("vision_projected", options.activation_dtype,
                                               {batch.num_projected + newline_rows, config.width()});
  const Tensor x =
      step_arena.allocate("vision_residual", options.activation_dtype, {batch.num_rows, config.hidden_size});
  embed(step, batch, x);
  const auto project = [&](const Projector& with, const Tensor& rows, int64_t place) {
    const Arena::Scope scope(step_arena);
    const Tensor out = column_slice(row_slice(projected, 0, batch.num_projected), place * config.out_hidden_size,
                                    config.out_hidden_size);
    with.forward(step, reordered(step, batch, rows), batch.groups, batch.averages, out);
  };
  size_t next_deepstack = 0;
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const StepContext layer_step = config.is_full(i) ? step : step_with(*windows);
    layers[static_cast<size_t>(i)]->forward(layer_step, x);
    if (next_deepstack < deepstack.size() && config.deepstack_layers[next_deepstack] == i) {
      project(*deepstack[next_deepstack], x, static_cast<int64_t>(next_deepstack) + 1);
      ++next_deepstack;
    }
  }
  if (post_norm) post_norm->forward(step_ops, x, x);
  project(*projector, x, 0);
  return select(step, batch, projected);
}

void Encoder::Impl::embed(const StepContext& step, const EncoderBatch& batch, const Tensor& out) const {
  const Arena::Scope scope(step.arena);
  Tensor pixels = batch.pixels;
  if (pixels.dtype != options.activation_dtype) {
    pixels = step.arena.allocate("vision_pixels", options.activation_dtype, {batch.num_rows, config.patch_dim});
    step.ops.cast({.in = batch.pixels, .out = pixels});
  }
  patch_proj.forward(step.ops, pixels, out);
  if (table) add_positions(step, batch, out);
  if (pre_norm) pre_norm->forward(step.ops, out, out);
}

void Encoder::Impl::add_positions(const StepContext& step, const EncoderBatch& batch, const Tensor& x) const {
  const int64_t rows = batch.table_rows.shape[0];
  const Tensor taps = step.arena.allocate("vision_positions", x.dtype, {rows, config.hidden_size});
  table->forward(step, batch.table_rows, 1.0F, taps);
  Tensor positions = taps;
  if (rows != batch.num_rows) {
    positions = step.arena.allocate("vision_position_sums", x.dtype, {batch.num_rows, config.hidden_size});
    step.ops.moe_combine({.x = taps, .position = batch.table_order, .weights = batch.table_weights, .out = positions});
  }
  step.ops.add({.a = x, .b = positions, .out = x});
}

Tensor Encoder::Impl::reordered(const StepContext& step, const EncoderBatch& batch, const Tensor& x) const {
  const Tensor rows = step.arena.allocate("vision_reordered", x.dtype, {batch.num_merge_rows, config.hidden_size});
  if (is_given(batch.merge)) {
    step.ops.gather_rows({.in = x, .index = batch.merge, .out = rows});
  } else {
    step.ops.cast({.in = x, .out = rows});  // a copy: layers after a deepstack projector read x again
  }
  return rows;
}

Tensor Encoder::Impl::select(const StepContext& step, const EncoderBatch& batch, const Tensor& projected) const {
  if (newline) newline->forward(step, batch.newline_ids, 1.0F, row_slice(projected, batch.num_projected, 1));
  if (!is_given(batch.output_rows)) return projected;
  const int64_t rows = batch.output_rows.shape[0];
  const Tensor taps = step.arena.allocate("vision_selected", projected.dtype, {rows, config.width()});
  step.ops.gather_rows({.in = projected, .index = batch.output_rows, .out = taps});
  if (rows == batch.num_tokens) return taps;
  const Tensor tokens = step.arena.allocate("vision_tokens", projected.dtype, {batch.num_tokens, config.width()});
  step.ops.moe_combine({.x = taps, .position = batch.output_order, .weights = batch.output_weights, .out = tokens});
  return tokens;
}

Encoder::Encoder(EncoderConfig config, EncoderOptions options, const Device& device, Stream& stream)
    : impl_(std::make_unique<Impl>(std::move(config), options, device, stream)) {}

Encoder::~Encoder() = default;

std::vector<std::string> Encoder::weight_names() const { return impl_->weights.names(); }

void Encoder::load_weight(const WeightSource& source) { impl_->weights.load(source); }

void Encoder::finish_loading() { impl_->finish_loading(); }

Tensor Encoder::encode(std::span<const EncoderItem* const> items) {
  StepMemory& memory = impl_->memory;
  check(memory.is_reserved(), ErrorCode::kInternal, "encode: expected after finish_loading()");
  const EncoderBatch batch = build_batch(items, impl_->config, memory.inputs());
  check(batch.num_rows <= impl_->options.max_rows, ErrorCode::kInvalidArgument, "encode: expected at most ",
        impl_->options.max_rows, " rows, found ", batch.num_rows);
  impl_->update(*impl_->segments, batch.cu_segments);
  if (impl_->windows) impl_->update(*impl_->windows, batch.cu_windows);
  return impl_->forward(memory.ops(), memory.arena(), batch);
}

size_t Encoder::weight_bytes() const { return impl_->weights.device_bytes(); }

size_t Encoder::activation_bytes() const { return impl_->memory.bytes(); }

const EncoderConfig& Encoder::config() const { return impl_->config; }
const EncoderOptions& Encoder::options() const { return impl_->options; }

}  // namespace turbomind
