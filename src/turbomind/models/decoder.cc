// SPDX-License-Identifier: Apache-2.0
#include "turbomind/models/decoder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "turbomind/layers/embedding.h"
#include "turbomind/models/decoder_layer.h"

namespace turbomind {
namespace {

void validate(const DecoderOptions& options, const Device& device) {
  const auto positive = [](const char* name, int64_t value) {
    check(value > 0, ErrorCode::kInvalidArgument, name, ": expected a positive count, found ", value);
  };
  positive("kv_block_size", options.kv_block_size);
  positive("max_tokens", options.max_tokens);
  positive("max_seqs", options.max_seqs);
  positive("max_logits_rows", options.max_logits_rows);
  positive("max_context", options.max_context);
  check(dtype_in(options.activation_dtype, device.props().activation_dtypes), ErrorCode::kUnsupported,
        device.plugin().name(), " backend: activation dtype ", dtype_name(options.activation_dtype),
        " is not among those it takes");
}

// A backend chooses kernels by these; the specs of one decoder differ in their heads only.
bool same_shape(const tm_attention_shape& a, const tm_attention_shape& b) {
  return a.num_heads == b.num_heads && a.window == b.window && a.kv.num_kv_heads == b.kv.num_kv_heads &&
         a.kv.head_dim_k == b.kv.head_dim_k && a.kv.head_dim_v == b.kv.head_dim_v;
}

// out[index[i]] += in[i]. in: float [M, H]; index: i32 [M], distinct; out: float [T, H].
void add_to_rows(const StepContext& step, const Tensor& in, const Tensor& index, const Tensor& out) {
  const Arena::Scope scope(step.arena);
  const Tensor rows = step.arena.allocate("rows", out.dtype, {in.shape[0], in.shape[1]});
  step.ops.gather_rows({.in = out, .index = index, .out = rows});
  step.ops.add({.a = rows, .b = in, .out = rows});
  step.ops.scatter_rows({.in = rows, .index = index, .out = out});
}

DecoderConfig validated(DecoderConfig config, const Device& device) {
  validate(config);
  check(config.logit_softcap == 0 || device.plugin().op().softcap, ErrorCode::kUnsupported,
        "logit_softcap: expected 0, as the ", device.plugin().name(), " backend lacks the op softcap, found ",
        config.logit_softcap);
  check(!config.bidirectional_media || device.props().attention_spans, ErrorCode::kUnsupported,
        "bidirectional_media: expected false, as attention of the ", device.plugin().name(),
        " backend takes no spans, found true");
  return config;
}

}  // namespace

struct Decoder::Impl {
  Impl(DecoderConfig config, DecoderOptions options, const Device& device, Stream& stream, Comm* comm);

  void finish_loading();
  Tensor forward(Ops& ops, Arena& arena, const StepInput& input) const;
  Tensor compute_logits(Ops& ops, Arena& arena, const Tensor& hidden, const Tensor& rows) const;
  void measure(const Plan& plan, Ops& ops, Arena& step_arena, Arena& logits_arena) const;
  // Whether the last layer computes the wanted rows only.
  bool picks_rows(const StepInput& input) const;
  std::vector<tm_attention_shape> attention_shapes() const;
  Plan make_plan(int64_t max_tokens) const;
  // fn(Block&) for every block of every layer.
  template <class Fn>
  void for_blocks(Fn fn) const;
  // fn(KvPool&) for every block that has one.
  template <class Fn>
  void for_kv_pools(Fn fn) const;

  DecoderConfig config;
  DecoderOptions options;
  const Device& device;
  Stream& stream;
  Comm* comm;
  WeightStore weights;
  LayerContext context;
  std::vector<std::unique_ptr<RopeTable>> ropes;
  Embedding embed_tokens;
  std::vector<std::unique_ptr<DecoderLayer>> layers;
  RmsNorm final_norm;
  LmHead lm_head;
  Workspace workspace;
  Ops ops;
  std::optional<Arena> step_arena;    // both from finish_loading() on
  std::optional<Arena> logits_arena;  // apart, as hidden states and logits are valid at once
  size_t activation_bytes = 0;
  int64_t num_kv_blocks = 0;
};

Decoder::Impl::Impl(DecoderConfig decoder_config, DecoderOptions decoder_options, const Device& on_device,
                    Stream& on_stream, Comm* ranks)
    : config(validated(std::move(decoder_config), on_device)),
      options(decoder_options),
      device(on_device),
      stream(on_stream),
      comm(ranks && ranks->size() > 1 ? ranks : nullptr),
      weights(device, stream, options.int8_weights),
      context{.device = device,
              .stream = stream,
              .comm = comm,
              .activation_dtype = options.activation_dtype,
              .compute = options.compute,
              .kv_dtype = options.kv_dtype,
              .kv_block_size = options.kv_block_size,
              .weights = weights},
      embed_tokens(context, "embed_tokens", config.vocab_size, config.hidden_size),
      final_norm(context, "final_norm", config.hidden_size, config.norm_eps),
      lm_head(context, config.vocab_size, config.hidden_size, config.tie_word_embeddings ? &embed_tokens : nullptr),
      workspace(device, stream),
      ops(device, stream, workspace) {
  validate(options, device);
  for (const RopeConfig& rope : config.ropes) {
    ropes.push_back(std::make_unique<RopeTable>(weights, rope, options.max_context));
  }
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const std::string prefix = "layers." + std::to_string(i) + ".";
    layers.push_back(std::make_unique<DecoderLayer>(context, prefix, config, config.layers[i], ropes));
  }
}

template <class Fn>
void Decoder::Impl::for_blocks(Fn fn) const {
  for (const auto& layer : layers) {
    fn(layer->attention());
    fn(layer->ffn());
  }
}

template <class Fn>
void Decoder::Impl::for_kv_pools(Fn fn) const {
  for_blocks([&](Block& block) {
    if (KvPool* pool = block.kv_pool()) fn(*pool);
  });
}

std::vector<tm_attention_shape> Decoder::Impl::attention_shapes() const {
  std::vector<tm_attention_shape> shapes;
  for_blocks([&](const Block& block) {
    const std::optional<tm_attention_shape> shape = block.attention_shape();
    const auto equal = [&](const tm_attention_shape& other) { return same_shape(*shape, other); };
    if (shape && std::none_of(shapes.begin(), shapes.end(), equal)) shapes.push_back(*shape);
  });
  return shapes;
}

Plan Decoder::Impl::make_plan(int64_t max_tokens) const {
  const std::vector<tm_attention_shape> shapes = attention_shapes();
  return Plan(device, {.max_tokens = max_tokens,
                       .max_seqs = options.max_seqs,
                       .max_blocks_per_seq = (options.max_context + options.kv_block_size - 1) / options.kv_block_size,
                       .block_size = options.kv_block_size,
                       .shapes = shapes.data(),
                       .num_shapes = static_cast<int32_t>(shapes.size())});
}

void Decoder::Impl::finish_loading() {
  weights.check_complete();
  const Plan plan = make_plan(options.max_tokens);
  Ops measured_ops(device, stream, workspace, Ops::Mode::kMeasure);
  Arena measured_step;
  Arena measured_logits;
  measure(plan, measured_ops, measured_step, measured_logits);
  step_arena.emplace(device, measured_step.peak());
  logits_arena.emplace(device, measured_logits.peak());
  activation_bytes = measured_step.peak() + measured_logits.peak();
  workspace.require(measured_ops.peak_workspace_bytes());
  activation_bytes += workspace.bytes();
}

// Every op's scratch grows with its rows, so the largest step needs the most.
void Decoder::Impl::measure(const Plan& plan, Ops& measured_ops, Arena& step, Arena& logits) const {
  Arena inputs;
  const int64_t num_tokens = options.max_tokens;
  const Tensor ids = inputs.allocate("token_ids", TM_I32, {num_tokens});
  const Tensor positions = config.has_axes() ? inputs.allocate("positions", TM_I32, {3, num_tokens}) : ids;
  const int64_t width = int64_t{config.hidden_size} * (1 + config.num_deepstack);
  const Tensor embeddings = inputs.allocate("embeddings", options.activation_dtype, {num_tokens, width});
  StepInput input{
      .token_ids = ids, .positions = positions, .plan = &plan, .embeddings = embeddings, .embedding_rows = ids};
  const Tensor hidden = forward(measured_ops, step, input);
  // Rows picked out take memory beside those of all tokens.
  const int64_t most_wanted = std::min(options.max_seqs, StepInput::most_wanted(num_tokens));
  input.wanted = {.rows = row_slice(ids, 0, most_wanted), .plan = &plan};
  forward(measured_ops, step, input);
  compute_logits(measured_ops, logits, hidden, inputs.allocate("rows", TM_I32, {options.max_logits_rows}));
}

Tensor Decoder::Impl::forward(Ops& step_ops, Arena& arena, const StepInput& input) const {
  arena.reset();
  const StepContext step{
      .ops = step_ops, .arena = arena, .comm = comm, .plan = *input.plan, .positions = input.positions};
  const int64_t num_tokens = input.token_ids.shape[0];
  const Tensor x = arena.allocate("hidden", options.activation_dtype, {num_tokens, config.hidden_size});
  const Tensor residual = arena.allocate("residual", options.activation_dtype, {num_tokens, config.hidden_size});
  embed_tokens.forward(step, input.token_ids, config.embed_scale, residual);
  const auto pictures = [&](int64_t place) {
    return column_slice(input.embeddings, place * config.hidden_size, config.hidden_size);
  };
  if (is_given(input.embeddings)) {
    step_ops.scatter_rows({.in = pictures(0), .index = input.embedding_rows, .out = residual});
  }
  layers.front()->input_norm().forward(step_ops, residual, x);
  for (size_t i = 0; i < layers.size(); ++i) {
    const RmsNorm& next_norm = i + 1 < layers.size() ? layers[i + 1]->input_norm() : final_norm;
    const auto place = static_cast<int64_t>(i) + 1;
    if (i + 1 == layers.size() && picks_rows(input)) {
      layers[i]->forward_rows(step, x, residual, *input.wanted, next_norm);
      break;
    }
    layers[i]->forward(step, x, residual, next_norm);
    if (!is_given(input.embeddings) || place > config.num_deepstack) continue;
    add_to_rows(step, pictures(place), input.embedding_rows, residual);
    next_norm.forward(step_ops, residual, x);
  }
  return x;
}

bool Decoder::Impl::picks_rows(const StepInput& input) const {
  return input.wanted && input.wanted->count() <= StepInput::most_wanted(input.token_ids.shape[0]) &&
         config.num_deepstack < static_cast<int64_t>(layers.size());
}

Tensor Decoder::Impl::compute_logits(Ops& step_ops, Arena& arena, const Tensor& hidden, const Tensor& rows) const {
  arena.reset();
  const Tensor x = arena.allocate("logits_hidden", hidden.dtype, {rows.shape[0], config.hidden_size});
  step_ops.gather_rows({.in = hidden, .index = rows, .out = x});
  const Tensor logits = lm_head.forward(step_ops, arena, comm, x);
  if (config.logit_softcap > 0) step_ops.softcap({.x = logits, .cap = config.logit_softcap, .out = logits});
  return logits;
}

Decoder::Decoder(DecoderConfig config, DecoderOptions options, const Device& device, Stream& stream, Comm* comm)
    : impl_(std::make_unique<Impl>(std::move(config), options, device, stream, comm)) {}

Decoder::~Decoder() = default;

std::vector<std::string> Decoder::weight_names() const { return impl_->weights.names(); }

void Decoder::load_weight(const WeightSource& source) { impl_->weights.load(source); }

void Decoder::finish_loading() { impl_->finish_loading(); }

size_t Decoder::reserve_workspace(const std::function<void(Ops&)>& measure) {
  const size_t before = impl_->workspace.bytes();
  Ops measured_ops(impl_->device, impl_->stream, impl_->workspace, Ops::Mode::kMeasure);
  measure(measured_ops);
  impl_->workspace.require(measured_ops.peak_workspace_bytes());
  return impl_->workspace.bytes() - before;
}

Plan Decoder::make_plan() const { return impl_->make_plan(impl_->options.max_tokens); }

Plan Decoder::make_wanted_plan() const { return impl_->make_plan(impl_->options.max_seqs); }

size_t Decoder::weight_bytes() const { return impl_->weights.device_bytes(); }

size_t Decoder::activation_bytes() const {
  check(impl_->step_arena.has_value(), ErrorCode::kInternal, "activation_bytes: expected after finish_loading()");
  return impl_->activation_bytes;
}

size_t Decoder::kv_pool_bytes(int64_t num_blocks) const {
  size_t bytes = 0;
  impl_->for_kv_pools([&](const KvPool& pool) { bytes += align_up(pool.bytes(num_blocks)); });
  return bytes;
}

void Decoder::allocate_kv(int64_t num_blocks) {
  check(num_blocks > 0, ErrorCode::kInvalidArgument, "num_blocks: expected a positive count, found ", num_blocks);
  impl_->num_kv_blocks = 0;
  try {
    impl_->for_kv_pools([&](KvPool& pool) { pool.resize(num_blocks); });
  } catch (...) {
    impl_->for_kv_pools([&](KvPool& pool) { pool.release(); });
    throw;
  }
  impl_->num_kv_blocks = num_blocks;
}

Tensor Decoder::forward(const StepInput& input) {
  const int64_t num_tokens = input.token_ids.shape[0];
  check(impl_->step_arena && impl_->num_kv_blocks > 0, ErrorCode::kInternal,
        "forward: expected after finish_loading() and allocate_kv()");
  check(num_tokens <= impl_->options.max_tokens, ErrorCode::kInvalidArgument, "token_ids: expected at most ",
        impl_->options.max_tokens, " rows, found ", num_tokens);
  check(input.plan != nullptr, ErrorCode::kInvalidArgument, "plan: expected one, found NULL");
  return impl_->forward(impl_->ops, *impl_->step_arena, input);
}

Tensor Decoder::compute_logits(const Tensor& hidden, const Tensor& rows) {
  check(impl_->logits_arena.has_value(), ErrorCode::kInternal, "compute_logits: expected after finish_loading()");
  check(rows.shape[0] <= impl_->options.max_logits_rows, ErrorCode::kInvalidArgument, "rows: expected at most ",
        impl_->options.max_logits_rows, ", found ", rows.shape[0]);
  return impl_->compute_logits(impl_->ops, *impl_->logits_arena, hidden, rows);
}

void Decoder::copy_kv_blocks(const int32_t* pairs, int64_t num_pairs) {
  impl_->for_kv_pools([&](const KvPool& pool) {
    impl_->ops.kv_copy_blocks({.kv = pool.view(), .pairs = pairs, .num_pairs = num_pairs});
  });
}

const DecoderConfig& Decoder::config() const { return impl_->config; }
const DecoderOptions& Decoder::options() const { return impl_->options; }
Ops& Decoder::ops() { return impl_->ops; }

}  // namespace turbomind
