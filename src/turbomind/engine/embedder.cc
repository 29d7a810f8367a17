// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/embedder.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <utility>

#include "turbomind/core/error.h"
#include "turbomind/core/log.h"
#include "turbomind/engine/devices.h"

namespace turbomind {
namespace {

using Text = TextEncoder::Text;

void check_texts(const std::vector<Text>& texts, const TextEncoderConfig& config, const TextEncoderOptions& options) {
  for (const Text& text : texts) {
    check(!text.empty(), ErrorCode::kInvalidArgument, "input: expected at least one token, found none");
    check(static_cast<int64_t>(text.size()) <= options.max_text_len, ErrorCode::kPromptTooLong,
          "input: expected at most ", options.max_text_len, " tokens, found ", text.size());
    const auto outside =
        std::find_if(text.begin(), text.end(), [&](int32_t id) { return id < 0 || id >= config.vocab_size; });
    check(outside == text.end(), ErrorCode::kInvalidArgument, "input: expected token ids below ", config.vocab_size,
          ", found ", outside == text.end() ? 0 : *outside);
  }
}

}  // namespace

struct Embedder::Impl {
  Impl(TextEncoderConfig encoder_config, const EngineOptions& engine_options)
      : model(std::move(encoder_config)),
        ranks(open_ranks(engine_options)),
        options(resolve_options(engine_options, model, ranks->rank(0).device)),
        can_lose_device(!ranks->rank(0).device.props().host_accessible) {
    check(engine_options.tp == 1, ErrorCode::kUnsupported, "tp: expected 1 for an encoder, found ", engine_options.tp);
    make_encoder();
  }

  void make_encoder();
  void encode(std::span<const Text> texts, float* rows);
  // After a step that failed: an idle stream, or the device opened again with all it held.
  void recover(const Error& error);
  void reopen(const Error& error);

  const TextEncoderConfig model;
  std::unique_ptr<RankGroup> ranks;
  const TextEncoderOptions options;
  // The host's own processor and memory are never lost; other devices get their weights again from the sources.
  const bool can_lose_device;
  std::atomic<int64_t> num_recoveries{0};
  std::atomic<bool> is_lost{false};  // for good
  std::mutex mutex;                  // one call computes at a time; guards all below
  std::unique_ptr<TextEncoder> encoder;
  std::vector<WeightSource> sources;
  bool started = false;
  int num_attempts = 0;  // to open the device again, since the last step that worked
  std::optional<Error> loss;
};

void Embedder::Impl::make_encoder() {
  Rank& rank = ranks->rank(0);
  encoder = std::make_unique<TextEncoder>(model, options, rank.device, rank.stream);
}

void Embedder::Impl::encode(std::span<const Text> texts, float* rows) {
  size_t begin = 0;
  while (begin < texts.size()) {
    size_t end = begin;
    int64_t tokens = 0;
    while (end < texts.size() && tokens + static_cast<int64_t>(texts[end].size()) <= options.max_tokens) {
      tokens += static_cast<int64_t>(texts[end++].size());
    }
    encoder->encode(texts.subspan(begin, end - begin), rows + static_cast<int64_t>(begin) * model.hidden_size);
    num_attempts = 0;
    begin = end;
  }
}

void Embedder::Impl::recover(const Error& error) {
  if (error.code() == ErrorCode::kDeviceLost) return reopen(error);
  try {
    ranks->rank(0).stream.synchronize();
  } catch (const Error& later) {
    // What is left of the failed step may fail as well.
    if (later.code() == ErrorCode::kDeviceLost) reopen(later);
  }
}

void Embedder::Impl::reopen(const Error& error) {
  while (can_lose_device && num_attempts < kMaxDeviceRecoveries) {
    // A device that has just fallen over may need a moment; the first try needs none.
    if (num_attempts++ > 0) std::this_thread::sleep_for(kDeviceRecoveryPause);
    try {
      encoder.reset();
      ranks->reopen();
      make_encoder();
      for (const WeightSource& source : sources) encoder->load_weight(source);
      encoder->finish_loading();
      ++num_recoveries;
      log(LogLevel::kWarning, "the device was lost; it was opened again and holds the encoder");
      return;
    } catch (const std::exception& failure) {
      log(LogLevel::kError, "the lost device could not be opened again: ", failure.what());
    }
  }
  loss = error;
  is_lost = true;
}

Embedder::Embedder(TextEncoderConfig model, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(std::move(model), options)) {}

Embedder::~Embedder() = default;

void Embedder::load_weight(const WeightSource& source) {
  const std::scoped_lock lock(impl_->mutex);
  impl_->encoder->load_weight(source);
  if (impl_->can_lose_device) impl_->sources.push_back(source);
}

EmbedderMemory Embedder::start() {
  const std::scoped_lock lock(impl_->mutex);
  impl_->encoder->finish_loading();
  impl_->started = true;
  return {.weight_bytes = impl_->encoder->weight_bytes(),
          .activation_bytes = impl_->encoder->activation_bytes(),
          .on_host = impl_->ranks->rank(0).device.props().host_accessible != 0};
}

void Embedder::embed(const std::vector<Text>& texts, float* rows) {
  check_texts(texts, impl_->model, impl_->options);
  const std::scoped_lock lock(impl_->mutex);
  check(impl_->started, ErrorCode::kInternal, "embed: expected after start()");
  if (impl_->loss) throw *impl_->loss;
  try {
    impl_->encode(texts, rows);
  } catch (const Error& error) {
    impl_->recover(error);
    throw;
  }
}

int64_t Embedder::max_text_len() const { return impl_->options.max_text_len; }
int64_t Embedder::max_tokens() const { return impl_->options.max_tokens; }
const TextEncoderConfig& Embedder::config() const { return impl_->model; }

int64_t Embedder::num_recoveries() const { return impl_->num_recoveries; }
bool Embedder::is_lost() const { return impl_->is_lost; }

}  // namespace turbomind
