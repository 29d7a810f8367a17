// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/model_runner.h"

#include <algorithm>
#include <bit>

#include "turbomind/core/log.h"

namespace turbomind {
namespace {

// Wider batches are worth less to replay, and every size costs a recording.
constexpr int64_t kMaxCapturedSeqs = 512;

// Sizes that recordings are made for: powers of two up to 8, from there on four between one and the next, so that a
// step computes at most a quarter more than it needs.
int64_t captured_size(int64_t seqs) {
  const auto least = static_cast<uint64_t>(seqs);
  if (seqs <= 8) return static_cast<int64_t>(std::bit_ceil(least));
  const auto step = static_cast<int64_t>(std::bit_floor(least - 1)) / 4;
  return (seqs + step - 1) / step * step;
}

size_t input_bytes(const DecoderOptions& limits) {
  const auto tokens = static_cast<size_t>(limits.max_tokens);
  const auto seqs = static_cast<size_t>(limits.max_seqs);
  // Token ids, positions on up to three axes, rows of pictures and their tokens; pending and wanted rows.
  return 6 * UploadBuffer::bytes_for<int32_t>(tokens) + 2 * UploadBuffer::bytes_for<int32_t>(seqs) +
         Sampler::upload_bytes(limits.max_seqs);
}

}  // namespace

ModelRunner::ModelRunner(Decoder& decoder, EncoderRunner* encoder, const Device& device, Stream& stream, bool fetches)
    : decoder_(decoder),
      encoder_(encoder),
      stream_(stream),
      fetches_(fetches),
      plan_(decoder.make_plan()),
      wanted_plan_(decoder.make_wanted_plan()),
      inputs_(device, stream),
      sampler_(decoder, device, stream, decoder.options().max_seqs),
      row_reader_(decoder, device, stream),
      slots_{Slot(device), Slot(device)},
      can_capture_(device.can_capture()) {
  inputs_.begin(input_bytes(decoder.options()));
}

std::vector<GroupRows> ModelRunner::issue_forward(const StepBatch& batch) {
  std::vector<GroupRows> rows;
  Slot& slot = slots_[issue_slot_];
  // Its half of the host buffers is about to be written again.
  if (slot.issued) slot.done.synchronize();
  slot.issued = true;
  slot.samples = batch.sampling.rows() > 0;
  copy_blocks(batch.copies);
  if (encoder_) encoder_->encode(batch.encodes);
  const int64_t padded = padded_size(batch);
  upload(batch, padded);
  update_plan(batch, padded);
  if (padded > 0) {
    run_captured(captured_[padded]);
  } else {
    run_eager(batch, rows);
  }
  return rows;
}

void ModelRunner::copy_blocks(const std::vector<BlockCopy>& copies) {
  if (!copies.empty()) decoder_.copy_kv_blocks(&copies.front().source, static_cast<int64_t>(copies.size()));
}

void ModelRunner::issue_sampling(const SamplingBatch& batch) {
  if (batch.rows() > 0) {
    const Tensor logits = row_slice(logits_, 0, batch.rows());
    sampler_.sample(logits, batch);
    sampler_.fetch(hidden_, logits, batch, issue_slot_, fetches_);
  }
  slots_[issue_slot_].done.record(stream_);
  issue_slot_ = 1 - issue_slot_;
}

SampledTokens ModelRunner::collect() {
  const size_t index = collect_slot_;
  collect_slot_ = 1 - collect_slot_;
  slots_[index].done.synchronize();
  // A wait that an error cut short must not pass for tokens.
  check(slots_[index].done.reached(), ErrorCode::kDevice, "step: expected it to have ended, found its work dropped");
  return slots_[index].samples ? sampler_.read(index) : SampledTokens{};
}

int64_t ModelRunner::padded_size(const StepBatch& batch) const {
  if (!can_capture_ || !batch.decode_only || !batch.media_rows.empty() || batch.num_seqs > kMaxCapturedSeqs) return 0;
  return std::min(captured_size(batch.num_seqs), decoder_.options().max_seqs);
}

void ModelRunner::upload(const StepBatch& batch, int64_t padded) {
  const int64_t num_tokens = std::max(batch.num_tokens, padded);
  const auto padded_tokens = static_cast<size_t>(num_tokens);
  inputs_.begin(input_bytes(decoder_.options()));
  sampler_.upload(inputs_, batch.sampling, std::max(batch.sampling.rows(), padded));
  const auto max_seqs = static_cast<size_t>(decoder_.options().max_seqs);
  pending_rows_ = inputs_.add(batch.pending_rows, max_seqs);
  wanted_rows_ = inputs_.add(batch.wanted.rows, max_seqs);
  const auto capacity = 3 * static_cast<size_t>(decoder_.options().max_tokens);
  if (decoder_.config().has_axes()) {
    std::vector<int32_t> positions;
    for (const std::vector<int32_t>& axis : batch.positions) {
      positions.insert(positions.end(), axis.begin(), axis.end());
      positions.resize(positions.size() + padded_tokens - axis.size(), 0);
    }
    positions_ = reshape(inputs_.add(positions, capacity), {3, num_tokens});
  } else {
    positions_ = inputs_.add(batch.positions[0], capacity, padded_tokens);
  }
  media_rows_ = inputs_.add(batch.media_rows);
  media_tokens_ = inputs_.add(batch.media_tokens);
  token_ids_ = inputs_.add(batch.token_ids, 0, padded_tokens);
  inputs_.send();
  if (!batch.has_pending) return;
  const Tensor tokens = sampler_.last_tokens();
  decoder_.ops().scatter_rows({.in = reshape(tokens, {tokens.shape[0], 1}),
                               .index = pending_rows_,
                               .out = reshape(token_ids_, {num_tokens, 1})});
}

void ModelRunner::update_plan(const StepBatch& batch, int64_t padded) {
  int32_t max_q_len = 1;
  for (size_t i = 1; i < batch.cu_seqlens_q.size(); ++i) {
    max_q_len = std::max(max_q_len, batch.cu_seqlens_q[i] - batch.cu_seqlens_q[i - 1]);
  }
  plan_.update(stream_, {.num_seqs = batch.num_seqs,
                         .num_tokens = batch.num_tokens,
                         .cu_seqlens_q = batch.cu_seqlens_q.data(),
                         .context_lens = batch.context_lens.data(),
                         .block_table = batch.block_table.data(),
                         .block_table_stride = batch.block_table_stride,
                         .padded_tokens = padded,
                         .padded_seqs = padded,
                         .max_q_len = max_q_len,
                         .spans = batch.spans.data(),
                         .num_spans = static_cast<int64_t>(batch.spans.size() / 3)});
}

void ModelRunner::update_wanted_plan(const StepBatch& batch) {
  const WantedBatch& wanted = batch.wanted;
  const auto count = static_cast<int64_t>(wanted.rows.size());
  wanted_plan_.update(stream_, {.num_seqs = count,
                                .num_tokens = count,
                                .cu_seqlens_q = wanted.cu_seqlens_q.data(),
                                .context_lens = wanted.context_lens.data(),
                                .block_table = wanted.block_table.data(),
                                .block_table_stride = batch.block_table_stride,
                                .max_q_len = 1});
}

void ModelRunner::run_eager(const StepBatch& batch, std::vector<GroupRows>& rows) {
  StepInput input = step_input();
  if (!batch.media_rows.empty()) {
    input.embeddings = encoder_->gather(decoder_.ops(), stream_, media_rows_);
    input.embedding_rows = media_tokens_;
  }
  if (batch.picks_wanted) {
    if (!batch.wanted.rows.empty()) update_wanted_plan(batch);
    input.wanted = {.rows = wanted_rows_, .plan = &wanted_plan_};
  }
  hidden_ = decoder_.forward(input);
  if (!batch.row_groups.empty()) rows = row_reader_.read(hidden_, batch.row_groups, fetches_);
  if (batch.sampling.rows() > 0) logits_ = decoder_.compute_logits(hidden_, sampler_.hidden_rows());
}

void ModelRunner::run_captured(CapturedStep& step) {
  // The first run lets every op meet its shapes before they are recorded.
  const bool ready = step.ran && (!step.graph.empty() || capture(step));
  if (ready) {
    tm_plan* const plans[] = {plan_.handle()};
    step.graph.front().launch(stream_, plans);
    ++num_replays_;
  } else {
    forward(step);
    step.ran = true;
  }
  hidden_ = step.hidden;
  logits_ = step.logits;
}

bool ModelRunner::capture(CapturedStep& step) {
  try {
    stream_.capture_begin();
    try {
      forward(step);
    } catch (...) {
      abandon_capture();
      throw;
    }
    step.graph.push_back(stream_.capture_end());
    return true;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kDeviceLost) throw;
    log(LogLevel::kWarning, "steps are not captured any more: ", error.what());
    can_capture_ = false;
    return false;
  }
}

// Fails itself where what failed before has spoilt the capture, and would say less about why.
void ModelRunner::abandon_capture() {
  try {
    stream_.capture_end();
  } catch (const Error& error) {
    log(LogLevel::kDebug, "the end of a capture that failed: ", error.what());
  }
}

void ModelRunner::forward(CapturedStep& step) {
  step.hidden = decoder_.forward(step_input());
  step.logits = decoder_.compute_logits(step.hidden, sampler_.hidden_rows());
}

void ModelRunner::reset() {
  issue_slot_ = collect_slot_ = 0;
  for (Slot& slot : slots_) slot.issued = false;
  drop_recordings();
}

void ModelRunner::drop_recordings() {
  stream_.settle();
  captured_.clear();
}

}  // namespace turbomind
