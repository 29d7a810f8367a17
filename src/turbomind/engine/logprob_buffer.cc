// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/logprob_buffer.h"

#include <algorithm>
#include <bit>

namespace turbomind {

void LogprobBuffer::issue(Ops& ops, const Tensor& logits, const Tensor& ids, int32_t num_top) {
  rows_ = logits.shape[0];
  num_top_ = num_top;
  reserve();
  const Layout out = layout(device_buffer_.data());
  ops.logprobs({.logits = logits,
                .ids = ids,
                .logprobs = out.logprobs,
                .ranks = out.ranks,
                .top_ids = num_top ? out.top_ids : Tensor{},
                .top_logprobs = num_top ? out.top_logprobs : Tensor{}});
  stream_.copy(host_buffer_.data(), device_buffer_.data(), bytes(), TM_DEVICE_TO_HOST);
}

PositionLogprobs LogprobBuffer::row(int64_t i, int32_t token_id, int32_t num_top) const {
  const Layout in = layout(host_buffer_.data());
  const auto* top_ids = static_cast<const int32_t*>(in.top_ids.data) + i * num_top_;
  const auto* top_logprobs = static_cast<const float*>(in.top_logprobs.data) + i * num_top_;
  PositionLogprobs result;
  result.token = {token_id, static_cast<const float*>(in.logprobs.data)[i],
                  static_cast<const int32_t*>(in.ranks.data)[i]};
  for (int32_t j = 0; j < std::min<int64_t>(num_top, num_top_); ++j) {
    result.top.push_back({top_ids[j], top_logprobs[j], j});
  }
  return result;
}

LogprobBuffer::Layout LogprobBuffer::layout(void* data) const {
  auto* base = static_cast<float*>(data);
  return {make_tensor(base, TM_F32, {rows_}), make_tensor(base + rows_, TM_I32, {rows_}),
          make_tensor(base + 2 * rows_, TM_F32, {rows_, num_top_}),
          make_tensor(base + (2 + num_top_) * rows_, TM_I32, {rows_, num_top_})};
}

void LogprobBuffer::reserve() {
  if (bytes() <= device_buffer_.bytes()) return;
  stream_.synchronize();
  const size_t grown = std::bit_ceil(bytes());
  device_buffer_ = Buffer();
  device_buffer_ = Buffer(device_, grown);
  host_buffer_ = Buffer(device_, grown, TM_MEMORY_PINNED_HOST);
}

}  // namespace turbomind
