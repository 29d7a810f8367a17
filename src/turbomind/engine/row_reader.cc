// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/row_reader.h"

#include <algorithm>
#include <numeric>

namespace turbomind {

RowReader::RowReader(Decoder& decoder, const Device& device, Stream& stream)
    : decoder_(decoder), device_(device), stream_(stream), upload_(device, stream), logprobs_(device, stream) {}

std::vector<GroupRows> RowReader::read(const Tensor& hidden, const std::vector<RowGroup>& groups, bool collect) {
  std::vector<GroupRows> result(groups.size());
  const int64_t slice = decoder_.options().max_logits_rows;
  for (size_t i = 0; i < groups.size(); ++i) {
    for (int64_t begin = 0; begin < groups[i].num_rows; begin += slice) {
      const int64_t count = std::min(slice, groups[i].num_rows - begin);
      read_slice(hidden, groups[i], begin, count, collect, result[i]);
    }
  }
  return result;
}

void RowReader::read_slice(const Tensor& hidden, const RowGroup& group, int64_t begin, int64_t count, bool collect,
                           GroupRows& out) {
  if (group.hidden && collect) read_hidden(row_slice(hidden, group.first_row + begin, count), out.hidden);
  if (!group.logits && group.targets.empty()) return;
  std::vector<int32_t> rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), static_cast<int32_t>(group.first_row + begin));
  std::vector<int32_t> targets(rows.size(), 0);
  if (!group.targets.empty()) std::copy_n(group.targets.begin() + begin, count, targets.begin());
  upload_.begin(2 * UploadBuffer::bytes_for<int32_t>(rows.size()));
  const Tensor device_rows = upload_.add(rows);
  const Tensor device_targets = upload_.add(targets);
  upload_.send();
  const Tensor logits = decoder_.compute_logits(hidden, device_rows);
  // The next slice's numbers go where these still wait to be sent: a rank that reads nothing waits all the same.
  if (!collect) return stream_.synchronize();
  if (group.logits) append(logits, out.logits);
  if (begin >= group.num_targets) return;
  logprobs_.issue(decoder_.ops(), logits, device_targets, group.num_top);
  stream_.synchronize();
  for (int64_t i = 0; i < std::min<int64_t>(count, group.num_targets - begin); ++i) {
    out.prompt_logprobs.push_back(logprobs_.row(i, targets[static_cast<size_t>(i)], group.num_top));
  }
}

void RowReader::read_hidden(const Tensor& rows, RowBlock& out) {
  if (rows.dtype == TM_F32) return append(rows, out);
  const int64_t width = rows.shape[1];
  const auto bytes = static_cast<size_t>(decoder_.options().max_logits_rows * width) * sizeof(float);
  if (hidden_f32_.bytes() == 0) hidden_f32_ = Buffer(device_, bytes);
  const Tensor converted = make_tensor(hidden_f32_.data(), TM_F32, {rows.shape[0], width});
  decoder_.ops().cast({.in = rows, .out = converted});
  append(converted, out);
}

void RowReader::append(const Tensor& rows, RowBlock& out) {
  out.cols = rows.shape[1];
  const size_t begin = out.values.size();
  out.values.resize(begin + static_cast<size_t>(num_elements(rows)));
  stream_.copy(out.values.data() + begin, rows.data, nbytes(rows), TM_DEVICE_TO_HOST);
  stream_.synchronize();
}

}  // namespace turbomind
