// SPDX-License-Identifier: Apache-2.0
#include "model/decoder_runner.h"

#include <algorithm>
#include <numeric>
#include <random>

namespace turbomind::test {
namespace {

constexpr int64_t kMaxSequences = 4;
constexpr int64_t kNumBlocks = 48;
constexpr int64_t kMaxContext = 128;

DecoderOptions options_for(const Device& device) {
  const tm_device_props& props = device.props();
  return {.activation_dtype = TM_F32,
          .compute = TM_COMPUTE_FLOAT32,
          .kv_dtype = TM_F32,
          .kv_block_size = props.kv_block_sizes[0],
          .max_tokens = DecoderRunner::kMaxTokens,
          .max_seqs = kMaxSequences,
          .max_logits_rows = DecoderRunner::kMaxTokens,
          .max_context = kMaxContext};
}

int64_t blocks_for(int64_t tokens, int64_t block_size) { return (tokens + block_size - 1) / block_size; }

}  // namespace

DecoderRunner::DecoderRunner(const Plugin& plugin, const TinyModel& model, const Ranks* ranks)
    : device_(plugin, 0, {{"num_threads", "1"}}), stream_(device_) {
  if (ranks) comm_ = std::make_unique<Comm>(device_, ranks->id, ranks->rank, ranks->size);
  const DecoderOptions options = options_for(device_);
  decoder_ = std::make_unique<Decoder>(model.config, options, device_, stream_, comm_.get());
  for (const WeightSource& source : model.checkpoint) decoder_->load_weight(source);
  decoder_->finish_loading();
  const int64_t num_blocks = std::max(kNumBlocks, kMaxSequences * blocks_for(kMaxContext, options.kv_block_size));
  decoder_->allocate_kv(num_blocks);
  plan_.emplace(decoder_->make_plan());
  wanted_plan_.emplace(decoder_->make_wanted_plan());
  free_blocks_.resize(static_cast<size_t>(num_blocks));
  std::iota(free_blocks_.begin(), free_blocks_.end(), 0);
  std::shuffle(free_blocks_.begin(), free_blocks_.end(), std::mt19937(7));
}

void DecoderRunner::grow(SequenceState& state, int64_t count) {
  state.length += static_cast<int32_t>(count);
  const int64_t needed = blocks_for(state.length, decoder_->options().kv_block_size);
  while (static_cast<int64_t>(state.blocks.size()) < needed) {
    state.blocks.push_back(free_blocks_.back());
    free_blocks_.pop_back();
  }
}

Tensor DecoderRunner::upload(const void* data, DType dtype, std::initializer_list<int64_t> shape) {
  const size_t bytes = nbytes(make_tensor(data, dtype, shape));
  inputs_.emplace_back(device_, bytes);
  stream_.copy(inputs_.back().data(), data, bytes, TM_HOST_TO_DEVICE);
  stream_.synchronize();
  return make_tensor(inputs_.back().data(), dtype, shape);
}

Rows DecoderRunner::download(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(num_elements(tensor)));
  stream_.copy(values.data(), tensor.data, nbytes(tensor), TM_DEVICE_TO_HOST);
  stream_.synchronize();
  Rows rows;
  for (auto begin = values.begin(); begin != values.end(); begin += tensor.shape[1]) {
    rows.emplace_back(begin, begin + tensor.shape[1]);
  }
  return rows;
}

// Host arrays of one step, as tm_step_meta and StepInput want them.
struct DecoderRunner::StepArrays {
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;
  std::vector<int32_t> rows;
  std::vector<int32_t> boundaries{0};
  std::vector<int32_t> context_lens;
  std::vector<int32_t> block_table;
  int32_t max_q_len = 0;

  int64_t num_tokens() const { return static_cast<int64_t>(ids.size()); }
};

DecoderRunner::StepArrays DecoderRunner::lay_out(const std::vector<Chunk>& chunks) {
  StepArrays step;
  const auto stride = static_cast<size_t>(blocks_for(kMaxContext, decoder_->options().kv_block_size));
  for (const Chunk& chunk : chunks) {
    SequenceState& state = sequences_[chunk.sequence];
    int32_t position = state.length;
    for (const int32_t token : chunk.tokens) {
      step.positions.push_back(position++);
      step.rows.push_back(static_cast<int32_t>(step.num_tokens()));
      step.ids.push_back(token);
    }
    grow(state, static_cast<int64_t>(chunk.tokens.size()));
    step.boundaries.push_back(static_cast<int32_t>(step.num_tokens()));
    step.context_lens.push_back(state.length);
    step.max_q_len = std::max(step.max_q_len, static_cast<int32_t>(chunk.tokens.size()));
    std::vector<int32_t> table = state.blocks;
    table.resize(stride, -1);
    step.block_table.insert(step.block_table.end(), table.begin(), table.end());
  }
  return step;
}

Tensor DecoderRunner::want(const StepArrays& step, const std::vector<int32_t>& rows) {
  const auto count = static_cast<int64_t>(rows.size());
  if (count == 0) return make_tensor(rows.data(), TM_I32, {0});
  const auto stride = static_cast<std::ptrdiff_t>(step.block_table.size() / step.context_lens.size());
  std::vector<int32_t> boundaries(rows.size() + 1);
  std::iota(boundaries.begin(), boundaries.end(), 0);
  std::vector<int32_t> context_lens;
  std::vector<int32_t> table;
  for (const int32_t row : rows) {
    const auto end = std::upper_bound(step.boundaries.begin(), step.boundaries.end(), row);
    const auto sequence = end - step.boundaries.begin() - 1;
    context_lens.push_back(step.positions[static_cast<size_t>(row)] + 1);
    const auto blocks = step.block_table.begin() + sequence * stride;
    table.insert(table.end(), blocks, blocks + stride);
  }
  wanted_plan_->update(stream_, {.num_seqs = count,
                                 .num_tokens = count,
                                 .cu_seqlens_q = boundaries.data(),
                                 .context_lens = context_lens.data(),
                                 .block_table = table.data(),
                                 .block_table_stride = stride,
                                 .max_q_len = 1});
  return upload(rows.data(), TM_I32, {count});
}

Rows DecoderRunner::step(const std::vector<Chunk>& chunks, const std::map<int64_t, Row>& embeddings,
                         const std::optional<std::vector<int32_t>>& wanted) {
  const StepArrays step = lay_out(chunks);
  const auto num_seqs = static_cast<int64_t>(chunks.size());
  plan_->update(stream_, {.num_seqs = num_seqs,
                          .num_tokens = step.num_tokens(),
                          .cu_seqlens_q = step.boundaries.data(),
                          .context_lens = step.context_lens.data(),
                          .block_table = step.block_table.data(),
                          .block_table_stride = static_cast<int64_t>(step.block_table.size()) / num_seqs,
                          .max_q_len = step.max_q_len});
  inputs_.clear();
  StepInput input{.token_ids = upload(step.ids.data(), TM_I32, {step.num_tokens()}),
                  .positions = upload(step.positions.data(), TM_I32, {step.num_tokens()}),
                  .plan = &*plan_};
  std::vector<float> values;
  std::vector<int32_t> places;
  for (const auto& [place, row] : embeddings) {
    places.push_back(static_cast<int32_t>(place));
    values.insert(values.end(), row.begin(), row.end());
  }
  const auto num_rows = static_cast<int64_t>(places.size());
  if (num_rows > 0) {
    input.embeddings = upload(values.data(), TM_F32, {num_rows, decoder_->config().hidden_size});
    input.embedding_rows = upload(places.data(), TM_I32, {num_rows});
  }
  if (wanted) input.wanted = {.rows = want(step, *wanted), .plan = &*wanted_plan_};
  const Tensor hidden = decoder_->forward(input);
  return download(decoder_->compute_logits(hidden, upload(step.rows.data(), TM_I32, {step.num_tokens()})));
}

void DecoderRunner::fork(int32_t from, int32_t to) {
  const SequenceState& source = sequences_[from];
  SequenceState& copy = sequences_[to];
  grow(copy, source.length);
  std::vector<int32_t> pairs;
  for (size_t i = 0; i < source.blocks.size(); ++i) {
    pairs.push_back(source.blocks[i]);
    pairs.push_back(copy.blocks[i]);
  }
  decoder_->copy_kv_blocks(pairs.data(), static_cast<int64_t>(source.blocks.size()));
}

}  // namespace turbomind::test
