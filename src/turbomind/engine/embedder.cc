// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/embedder.h"

#include <algorithm>
#include <mutex>
#include <span>
#include <utility>

#include "turbomind/core/error.h"
#include "turbomind/engine/devices.h"

namespace turbomind {
namespace {

using Texts = std::vector<std::vector<int32_t>>;

void check_texts(const Texts& texts, const TextEncoderConfig& config, const TextEncoderOptions& options) {
  for (const std::vector<int32_t>& text : texts) {
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
  Impl(TextEncoderConfig model, const EngineOptions& options) : ranks(open_ranks(options)) {
    check(options.tp == 1, ErrorCode::kUnsupported, "tp: expected 1 for an encoder, found ", options.tp);
    Rank& rank = ranks->rank(0);
    const TextEncoderOptions resolved = resolve_options(options, model, rank.device);
    encoder = std::make_unique<TextEncoder>(std::move(model), resolved, rank.device, rank.stream);
  }

  std::unique_ptr<RankGroup> ranks;
  std::unique_ptr<TextEncoder> encoder;
  std::mutex mutex;  // one call computes at a time
  bool started = false;
};

Embedder::Embedder(TextEncoderConfig model, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(std::move(model), options)) {}

Embedder::~Embedder() = default;

void Embedder::load_weight(const WeightSource& source) {
  const std::scoped_lock lock(impl_->mutex);
  impl_->encoder->load_weight(source);
}

void Embedder::start() {
  const std::scoped_lock lock(impl_->mutex);
  impl_->encoder->finish_loading();
  impl_->started = true;
}

void Embedder::embed(const Texts& texts, float* rows) {
  const TextEncoderOptions& options = impl_->encoder->options();
  check_texts(texts, impl_->encoder->config(), options);
  const std::scoped_lock lock(impl_->mutex);
  check(impl_->started, ErrorCode::kInternal, "embed: expected after start()");
  const std::span<const std::vector<int32_t>> all(texts);
  size_t begin = 0;
  while (begin < all.size()) {
    size_t end = begin;
    int64_t tokens = 0;
    while (end < all.size() && tokens + static_cast<int64_t>(all[end].size()) <= options.max_tokens) {
      tokens += static_cast<int64_t>(all[end++].size());
    }
    const auto offset = static_cast<int64_t>(begin) * impl_->encoder->config().hidden_size;
    impl_->encoder->encode(all.subspan(begin, end - begin), rows + offset);
    begin = end;
  }
}

int64_t Embedder::max_text_len() const { return impl_->encoder->options().max_text_len; }
int64_t Embedder::max_tokens() const { return impl_->encoder->options().max_tokens; }
size_t Embedder::weight_bytes() const { return impl_->encoder->weight_bytes(); }
size_t Embedder::activation_bytes() const { return impl_->encoder->activation_bytes(); }
const TextEncoderConfig& Embedder::config() const { return impl_->encoder->config(); }

}  // namespace turbomind
