// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/sampler.h"

#include <algorithm>

namespace turbomind {
namespace {

constexpr size_t kProcessArrays = 12;

size_t process_bytes(const LogitsProcessBatch& process) {
  const size_t elements = process.repetition_penalty.size() + process.presence_penalty.size() +
                          process.frequency_penalty.size() + process.history_offsets.size() +
                          process.history_ids.size() + process.history_counts.size() +
                          2 * process.pending_source.size() + process.bias_offsets.size() + process.bias_ids.size() +
                          process.bias_values.size() + process.bitmask.size();
  return elements * sizeof(int32_t) + kProcessArrays * kMemoryAlignment;
}

// process_bytes() of a batch in which every row has penalties and a mask, but no history yet.
size_t least_process_bytes(int64_t rows, int64_t vocab_size) {
  const auto mask_words = static_cast<size_t>(rows) * ((static_cast<size_t>(vocab_size) + 31) / 32);
  return (kProcessArrays * static_cast<size_t>(rows) + mask_words) * sizeof(int32_t) +
         kProcessArrays * kMemoryAlignment;
}

}  // namespace

Sampler::Sampler(Decoder& decoder, const Device& device, Stream& stream, int64_t max_rows)
    : decoder_(decoder),
      stream_(stream),
      max_rows_(max_rows),
      process_upload_(device, stream),
      tokens_(device, static_cast<size_t>(max_rows) * sizeof(int32_t)),
      slots_{Slot(device, stream, tokens_.bytes()), Slot(device, stream, tokens_.bytes())} {
  process_upload_.begin(least_process_bytes(max_rows, decoder.config().vocab_size));
  workspace_growth_ = decoder.reserve_workspace([this](Ops& ops) { measure(ops); });
}

void Sampler::measure(Ops& ops) const {
  Arena inputs;
  const int64_t vocab_size = decoder_.config().vocab_size;
  const int64_t num_top = std::min<int64_t>(kMaxLogprobs, vocab_size);
  const auto vector = [&](DType dtype, int64_t rows) { return inputs.allocate("sampling", dtype, {rows}); };
  const Tensor logits = inputs.allocate("logits", TM_F32, {max_rows_, vocab_size});
  ops.sample({.logits = logits,
              .temperature = vector(TM_F32, max_rows_),
              .top_k = vector(TM_I32, max_rows_),
              .top_p = vector(TM_F32, max_rows_),
              .min_p = vector(TM_F32, max_rows_),
              .seed = vector(TM_U64, max_rows_),
              .position = vector(TM_I64, max_rows_),
              .out = vector(TM_I32, max_rows_)});
  ops.logits_process({.logits = logits,
                      .repetition_penalty = vector(TM_F32, max_rows_),
                      .presence_penalty = vector(TM_F32, max_rows_),
                      .frequency_penalty = vector(TM_F32, max_rows_),
                      .history_offsets = vector(TM_I32, max_rows_ + 1),
                      .history_ids = vector(TM_I32, vocab_size),
                      .history_counts = vector(TM_I32, vocab_size),
                      .pending = inputs.allocate("pending", TM_I32, {max_rows_, 1}),
                      .bias_offsets = vector(TM_I32, max_rows_ + 1),
                      .bias_ids = vector(TM_I32, vocab_size),
                      .bias_values = vector(TM_F32, vocab_size),
                      .bitmask = inputs.allocate("bitmask", TM_U32, {max_rows_, (vocab_size + 31) / 32})});
  const int64_t rows = decoder_.options().max_logits_rows;
  ops.logprobs({.logits = inputs.allocate("logits", TM_F32, {rows, vocab_size}),
                .ids = vector(TM_I32, rows),
                .logprobs = vector(TM_F32, rows),
                .ranks = vector(TM_I32, rows),
                .top_ids = inputs.allocate("top_ids", TM_I32, {rows, num_top}),
                .top_logprobs = inputs.allocate("top_logprobs", TM_F32, {rows, num_top})});
}

size_t Sampler::upload_bytes(int64_t max_rows) {
  const auto rows = static_cast<size_t>(max_rows);
  return 5 * UploadBuffer::bytes_for<int32_t>(rows) + 2 * UploadBuffer::bytes_for<int64_t>(rows);
}

void Sampler::upload(UploadBuffer& buffer, const SamplingBatch& batch, int64_t padded_rows) {
  const auto capacity = static_cast<size_t>(max_rows_);
  hidden_rows_ = buffer.add(batch.hidden_rows, capacity, static_cast<size_t>(padded_rows));
  temperature_ = buffer.add(batch.temperature, capacity);
  top_k_ = buffer.add(batch.top_k, capacity);
  top_p_ = buffer.add(batch.top_p, capacity);
  min_p_ = buffer.add(batch.min_p, capacity);
  seed_ = buffer.add(batch.seed, capacity);
  position_ = buffer.add(batch.position, capacity);
}

void Sampler::sample(const Tensor& logits, const SamplingBatch& batch) {
  if (batch.num_processed > 0) process(logits, batch);
  num_last_ = batch.rows();
  decoder_.ops().sample({.logits = logits,
                         .temperature = temperature_,
                         .top_k = top_k_,
                         .top_p = top_p_,
                         .min_p = min_p_,
                         .seed = seed_,
                         .position = position_,
                         .out = last_tokens()});
}

void Sampler::fetch(const Tensor& hidden, const Tensor& logits, const SamplingBatch& batch, size_t index, bool wanted) {
  Slot& slot = slots_[index];
  slot.rows = batch.rows();
  slot.logprobs_begin = batch.logprobs_begin;
  slot.logprobs_end = batch.logprobs_end;
  slot.num_top = batch.num_top;
  if (batch.has_logprobs()) {
    const int64_t begin = batch.logprobs_begin;
    const int64_t count = batch.logprobs_end - begin;
    // Logprobs are of the raw logits; where those were processed they are computed again, which few requests cause.
    const bool processed = begin < batch.num_processed;
    const Tensor raw = processed ? decoder_.compute_logits(hidden, row_slice(hidden_rows_, begin, count))
                                 : row_slice(logits, begin, count);
    if (wanted) slot.logprobs.issue(decoder_.ops(), raw, row_slice(last_tokens(), begin, count), batch.num_top);
  }
  if (wanted) stream_.copy(slot.tokens.data(), tokens_.data(), nbytes(last_tokens()), TM_DEVICE_TO_HOST);
}

SampledTokens Sampler::read(size_t index) const {
  const Slot& slot = slots_[index];
  SampledTokens result;
  const auto* tokens = static_cast<const int32_t*>(slot.tokens.data());
  result.tokens.assign(tokens, tokens + slot.rows);
  for (int64_t row = slot.logprobs_begin; row < slot.logprobs_end; ++row) {
    result.logprobs.push_back(slot.logprobs.row(row - slot.logprobs_begin, tokens[row], slot.num_top));
  }
  return result;
}

Tensor Sampler::last_tokens() const { return make_tensor(tokens_.data(), TM_I32, {num_last_}); }

void Sampler::process(const Tensor& logits, const SamplingBatch& batch) {
  const LogitsProcessBatch& in = batch.process;
  process_upload_.begin(process_bytes(in));
  tm_logits_process_args args{.logits = row_slice(logits, 0, batch.num_processed)};
  const auto add = [&](const auto& values) { return values.empty() ? Tensor{} : process_upload_.add(values); };
  args.repetition_penalty = add(in.repetition_penalty);
  args.presence_penalty = add(in.presence_penalty);
  args.frequency_penalty = add(in.frequency_penalty);
  args.history_offsets = add(in.history_offsets);
  if (is_given(args.history_offsets)) {
    args.history_ids = process_upload_.add(in.history_ids);
    args.history_counts = process_upload_.add(in.history_counts);
  }
  args.bias_offsets = add(in.bias_offsets);
  if (is_given(args.bias_offsets)) {
    args.bias_ids = process_upload_.add(in.bias_ids);
    args.bias_values = process_upload_.add(in.bias_values);
  }
  const bool pending =
      std::any_of(in.pending_source.begin(), in.pending_source.end(), [](int32_t i) { return i >= 0; });
  Tensor sources{};
  if (pending) {
    sources = process_upload_.add(in.pending_source);
    const Tensor ids = process_upload_.add(std::vector<int32_t>(in.pending_source.size(), -1));
    args.pending = reshape(ids, {ids.shape[0], 1});
  }
  const Tensor mask = add(in.bitmask);
  if (is_given(mask)) args.bitmask = reshape(mask, {batch.num_processed, mask.shape[0] / batch.num_processed});
  process_upload_.send();
  if (pending) {
    const Tensor before = last_tokens();
    decoder_.ops().gather_rows({.in = reshape(before, {before.shape[0], 1}), .index = sources, .out = args.pending});
  }
  decoder_.ops().logits_process(args);
}

}  // namespace turbomind
