// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/encoder_runner.h"

#include <algorithm>

namespace turbomind {

EncoderRunner::EncoderRunner(Encoder& encoder, const Device& device, Stream& stream, const EncoderBudget& budget,
                             int64_t max_tokens)
    : encoder_(encoder),
      stream_(stream),
      workspace_(device, stream),
      ops_(device, stream, workspace_),
      targets_(device, stream),
      done_(device),
      read_(device) {
  const DType dtype = encoder.options().activation_dtype;
  const size_t row_bytes = dtype_size(dtype) * static_cast<size_t>(encoder.config().width());
  cache_ = Buffer(device, static_cast<size_t>(budget.cache_rows) * row_bytes);
  gathered_ = Buffer(device, static_cast<size_t>(max_tokens) * row_bytes);
  cache_rows_ = make_tensor(cache_.data(), dtype, {budget.cache_rows, encoder.config().width()});
  // To grow later would mean to wait for the encoder.
  targets_.begin(static_cast<size_t>(budget.cache_rows) * sizeof(int32_t));
}

void EncoderRunner::encode(const std::vector<EncodeJob>& jobs) {
  if (jobs.empty()) return;
  std::vector<const EncoderItem*> items;
  int64_t num_tokens = 0;
  for (const EncodeJob& job : jobs) {
    items.push_back(job.item.get());
    num_tokens += job.item->num_tokens;
  }
  const Tensor tokens = encoder_.encode(items);
  targets_.begin(static_cast<size_t>(num_tokens) * sizeof(int32_t));
  auto [host, targets] = targets_.reserve<int32_t>(TM_I32, {num_tokens});
  for (const EncodeJob& job : jobs) host = std::copy(job.rows.begin(), job.rows.end(), host);
  targets_.send();
  if (was_read_) read_.wait(stream_);
  ops_.scatter_rows({.in = tokens, .index = targets, .out = cache_rows_});
  done_.record(stream_);
}

Tensor EncoderRunner::gather(Ops& ops, Stream& stream, const Tensor& rows) {
  const Tensor out = make_tensor(gathered_.data(), cache_rows_.dtype, {rows.shape[0], cache_rows_.shape[1]});
  ops.gather_rows({.in = cache_rows_, .index = rows, .out = out});
  read_.record(stream);
  was_read_ = true;
  return out;
}

}  // namespace turbomind
