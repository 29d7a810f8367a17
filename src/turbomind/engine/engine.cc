// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "turbomind/core/log.h"
#include "turbomind/engine/devices.h"
#include "turbomind/engine/engine_loop.h"
#include "turbomind/engine/memory_plan.h"
#include "turbomind/engine/queues.h"

namespace turbomind {
namespace {

// Spreads consecutive numbers over all seeds (the finaliser of SplitMix64, Steele et al., OOPSLA 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9U;
  x = (x ^ x >> 27) * 0x94D049BB133111EBU;
  return x ^ x >> 31;
}

uint64_t random_word() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

EngineOptions validated(EngineOptions options) {
  validate(options);
  return options;
}

// More of them would wait for memory rather than compute.
constexpr size_t kMaxGuideThreads = 8;

size_t guide_threads(const EngineOptions& options) {
  const size_t granted =
      options.num_threads > 0 ? static_cast<size_t>(options.num_threads) : std::thread::hardware_concurrency();
  return std::clamp(granted, size_t{1}, kMaxGuideThreads);
}

}  // namespace

struct Engine::Impl {
  Impl(DecoderConfig model_config, EngineOptions engine_options, std::optional<EncoderConfig> vision_config)
      : options(validated(std::move(engine_options))),
        model(std::move(model_config)),
        vision(std::move(vision_config)),
        ranks(open_ranks(options)),
        resolved(resolve_options(options, model, encoder_config(), ranks->rank(0).device)),
        inbox(options.max_queue_size),
        can_lose_device(!ranks->rank(0).device.props().host_accessible),
        random_base(random_word()) {
    make_decoders();
  }

  void make_decoders();
  void load(const WeightSource& source);
  void prepare_ranks();
  MemoryPlan size_kv();
  // The engine thread, after a loss: devices, weights and a KV cache as they were after start().
  void reopen_devices(const MemoryPlan& plan);
  Request make_request(std::vector<int32_t> prompt, SamplingParams params, MediaInput media);
  const EncoderConfig* encoder_config() const { return vision ? &*vision : nullptr; }

  const EngineOptions options;
  const DecoderConfig model;
  const std::optional<EncoderConfig> vision;
  std::unique_ptr<RankGroup> ranks;
  const ResolvedOptions resolved;
  SubmitQueue inbox;
  OutputQueue outputs;
  std::optional<EngineLoop> loop;            // from start() on
  std::atomic<int64_t> max_sequence_len{0};  // tokens; 0 before start()
  std::atomic<uint64_t> last_id{0};
  // The host's own processor and memory are never lost; other devices get their weights again from the sources.
  const bool can_lose_device;
  std::vector<WeightSource> sources;
  const uint64_t random_base;
  std::mutex stop_mutex;  // guards joining thread
  std::thread thread;
  std::future<void> ended;  // the thread's work
};

void Engine::Impl::make_decoders() {
  ranks->run([this](Rank& rank, int32_t) {
    rank.decoder = std::make_unique<Decoder>(model, resolved.decoder, rank.device, rank.stream, rank.comm.get());
    if (!vision) return;
    rank.encoder_stream = std::make_unique<Stream>(rank.device);
    rank.encoder = std::make_unique<Encoder>(*vision, resolved.encoder, rank.device, *rank.encoder_stream);
  });
}

void Engine::Impl::load(const WeightSource& source) {
  const bool of_encoder = vision && source.name.starts_with("vision.");
  ranks->run(
      [&](Rank& rank, int32_t) { of_encoder ? rank.encoder->load_weight(source) : rank.decoder->load_weight(source); });
}

void Engine::Impl::reopen_devices(const MemoryPlan& plan) {
  ranks->reopen();
  make_decoders();
  for (const WeightSource& source : sources) load(source);
  prepare_ranks();
  allocate_kv(*ranks, plan);
}

void Engine::Impl::prepare_ranks() {
  ranks->run([this](Rank& rank, int32_t index) {
    rank.decoder->finish_loading();
    if (rank.encoder) {
      rank.encoder->finish_loading();
      rank.encoder_runner = std::make_unique<EncoderRunner>(*rank.encoder, rank.device, *rank.encoder_stream,
                                                            resolved.encoder_budget, resolved.decoder.max_tokens);
    }
    rank.runner =
        std::make_unique<ModelRunner>(*rank.decoder, rank.encoder_runner.get(), rank.device, rank.stream, index == 0);
  });
}

MemoryPlan Engine::Impl::size_kv() {
  return plan_memory(*ranks, {.block_size = resolved.decoder.kv_block_size,
                              .session_len = resolved.session_len,
                              .max_num_seqs = options.max_num_seqs,
                              .num_blocks = options.num_kv_blocks,
                              .fraction = options.cache_memory_fraction});
}

Request Engine::Impl::make_request(std::vector<int32_t> prompt, SamplingParams params, MediaInput media) {
  const int64_t limit = max_sequence_len.load();
  check(limit > 0, ErrorCode::kInvalidArgument, "submit: expected after start()");
  validate(params, model.vocab_size, options.max_num_seqs);
  validate_prompt(prompt, model.vocab_size, limit);
  validate(media, static_cast<int64_t>(prompt.size()), model, encoder_config(), resolved.encoder_budget,
           resolved.session_len);
  Request request;
  request.id = ++last_id;
  const auto prompt_len = static_cast<int64_t>(prompt.size());
  request.position_delta = position_delta(media, prompt_len);
  // A video's time axis may run ahead of its tokens.
  const int64_t last_len = std::min(limit, resolved.session_len - request.position_delta);
  request.max_len = prompt_len + std::min(params.max_new_tokens, std::max<int64_t>(0, last_len - prompt_len));
  if (params.guide) {
    const int64_t needed = params.guide->draws_to_end();
    check(request.max_len - prompt_len >= needed, ErrorCode::kInvalidArgument, "max_new_tokens: expected at least ",
          needed, ", which the guide needs to come to an end, found ", request.max_len - prompt_len);
  }
  request.prompt = std::move(prompt);
  for (const MediaSpan& span : media.spans) params.cache_keys.push_back({span.begin, span.end(), span.item->digest});
  request.media = std::move(media);
  std::sort(params.cache_keys.begin(), params.cache_keys.end());
  if (!params.seed) params.seed = mix(random_base + request.id);
  request.params = std::move(params);
  request.arrival = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  return request;
}

Engine::Engine(DecoderConfig model, EngineOptions options, std::optional<EncoderConfig> vision)
    : impl_(std::make_unique<Impl>(std::move(model), std::move(options), std::move(vision))) {}

Engine::~Engine() { stop(StopMode::kCancel); }

void Engine::load_weight(const WeightSource& source) {
  impl_->load(source);
  if (impl_->can_lose_device) impl_->sources.push_back(source);
}

MemoryPlan Engine::start() {
  check(!impl_->loop, ErrorCode::kInvalidArgument, "start: expected once, found the engine started");
  impl_->prepare_ranks();
  MemoryPlan plan = impl_->size_kv();
  allocate_kv(*impl_->ranks, plan);
  log(LogLevel::kInfo, "memory\n", plan.to_string());
  const EngineOptions& options = impl_->options;
  LoopConfig config{
      .limits = {.max_num_seqs = options.max_num_seqs, .max_num_batched_tokens = options.max_num_batched_tokens},
      .num_blocks = static_cast<int32_t>(plan.num_kv_blocks),
      .block_size = plan.block_size,
      .enable_prefix_caching = options.enable_prefix_caching,
      .vocab_size = impl_->model.vocab_size,
      .has_axes = impl_->model.has_axes(),
      .bidirectional_media = impl_->model.bidirectional_media,
      .encoder = impl_->vision ? std::optional(impl_->resolved.encoder_budget) : std::nullopt,
      .look_ahead = impl_->ranks->rank(0).device.props().asynchronous ? size_t{1} : size_t{0},
      .guide_threads = guide_threads(options),
      .reopen_devices = {}};
  if (impl_->can_lose_device) config.reopen_devices = [impl = impl_.get(), plan] { impl->reopen_devices(plan); };
  impl_->loop.emplace(*impl_->ranks, impl_->inbox, impl_->outputs, std::move(config));
  impl_->max_sequence_len = plan.max_sequence_len;
  std::promise<void> ended;
  impl_->ended = ended.get_future();
  impl_->thread = std::thread([this, ended = std::move(ended)]() mutable {
    impl_->loop->run();
    ended.set_value();
  });
  return plan;
}

uint64_t Engine::submit(std::vector<int32_t> prompt_token_ids, SamplingParams params, MediaInput media) {
  auto request = std::make_shared<const Request>(
      impl_->make_request(std::move(prompt_token_ids), std::move(params), std::move(media)));
  const uint64_t id = request->id;
  impl_->inbox.submit(std::move(request));
  return id;
}

void Engine::cancel(uint64_t request_id) { impl_->inbox.cancel(request_id); }

std::vector<Output> Engine::poll(std::chrono::milliseconds timeout) { return impl_->outputs.poll(timeout); }

int Engine::event_fd() const { return impl_->outputs.event_fd(); }

int32_t Engine::vocab_size() const { return impl_->model.vocab_size; }

EngineStats Engine::stats() const { return impl_->loop ? impl_->loop->stats() : EngineStats{}; }

void Engine::stop(StopMode mode) {
  const auto closing = mode == StopMode::kDrain ? SubmitQueue::Closing::kDrain : SubmitQueue::Closing::kCancel;
  impl_->inbox.close(closing, ErrorCode::kCancelled, "submit: the engine was stopped");
  const std::lock_guard lock(impl_->stop_mutex);
  if (impl_->thread.joinable()) {
    // A step comes to its end, but not that of ranks which wait for one that has stalled.
    constexpr std::chrono::seconds kPatience(5);
    if (mode == StopMode::kCancel && impl_->ended.wait_for(kPatience) == std::future_status::timeout) {
      impl_->ranks->abort();
    }
    impl_->thread.join();
  } else {
    impl_->outputs.close();
  }
}

}  // namespace turbomind
