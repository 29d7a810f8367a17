// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops.h"
#include "ops/row_ranges.h"
#include "ops/tensor_args.h"

namespace turbomind::cpu {
namespace {

constexpr int64_t kScanBlocks = 32;  // blocks whose maxima are taken at once
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The largest logits seen so far, ties to the lower id: descending, in the op's own output rows.
class TopList {
 public:
  TopList(int32_t* ids, float* logits, int64_t capacity) : ids_(ids), logits_(logits), capacity_(capacity) {}

  bool full() const { return size_ == capacity_; }
  float worst() const { return logits_[size_ - 1]; }

  // Ids come in ascending order.
  void offer(float logit, int64_t id) {
    if (full() && !(logit > worst())) return;
    if (!full()) ++size_;
    int64_t at = size_ - 1;
    for (; at > 0 && logits_[at - 1] < logit; --at) {
      logits_[at] = logits_[at - 1];
      ids_[at] = ids_[at - 1];
    }
    logits_[at] = logit;
    ids_[at] = static_cast<int32_t>(id);
  }

 private:
  int32_t* ids_;
  float* logits_;
  int64_t capacity_;
  int64_t size_ = 0;
};

// Calls fn(first index, index past the last, largest) for blocks of the row, in order.
template <class Fn>
void for_blocks(const LogitsKernels& kernels, const float* x, int64_t n, Fn&& fn) {
  float maxima[kScanBlocks];
  for (int64_t begin = 0; begin < n; begin += kScanBlocks * kMaximaBlock) {
    const int64_t end = std::min(begin + kScanBlocks * kMaximaBlock, n);
    kernels.block_maxima(x + begin, end - begin, maxima);
    for (int64_t i = begin; i < end; i += kMaximaBlock) {
      fn(i, std::min(i + kMaximaBlock, end), maxima[(i - begin) / kMaximaBlock]);
    }
  }
}

float largest(const LogitsKernels& kernels, const float* x, int64_t n) {
  float result = -kInfinity;
  for_blocks(kernels, x, n, [&](int64_t, int64_t, float block) { result = std::max(result, block); });
  return result;
}

void find_top(const LogitsKernels& kernels, const float* x, int64_t n, TopList& top) {
  for_blocks(kernels, x, n, [&](int64_t begin, int64_t end, float block) {
    if (top.full() && !(block > top.worst())) return;
    for (int64_t i = begin; i < end; ++i) top.offer(std::isnan(x[i]) ? -kInfinity : x[i], i);
  });
}

}  // namespace

void CpuOps::logprobs(Stream& stream, const tm_logprobs_args& args, const tm_workspace&) {
  const Matrix<float> logits = matrix_arg<float>(args.logits, "logits");
  const int32_t* ids = vector_arg<int32_t>(args.ids, "ids");
  float* out = vector_arg<float>(args.logprobs, "logprobs");
  int32_t* ranks = vector_arg<int32_t>(args.ranks, "ranks");
  const bool with_top = given(args.top_ids) && args.top_ids.shape[1] > 0;
  const Matrix<int32_t> top_ids = with_top ? matrix_arg<int32_t>(args.top_ids, "top_ids") : Matrix<int32_t>{};
  const Matrix<float> top = with_top ? matrix_arg<float>(args.top_logprobs, "top_logprobs") : Matrix<float>{};
  require(top_ids.cols <= logits.cols, "top_ids", "at most " + std::to_string(logits.cols) + " columns");
  for (int64_t row = 0; row < logits.rows; ++row) {
    require(ids[row] >= 0 && ids[row] < logits.cols, "ids",
            "values in [0, " + std::to_string(logits.cols) + "), found " + std::to_string(ids[row]));
  }
  const LogitsKernels& kernels = stream.kernels().logits;
  stream.pool().parallel_for(logits.rows, [&](int64_t row) {
    const float* x = logits.row(row);
    const float max = largest(kernels, x, logits.cols);
    const double log_sum = max + std::log(kernels.exponential_sum(x, max, 1.0f, logits.cols, nullptr));
    out[row] = static_cast<float>(x[ids[row]] - log_sum);
    if (ranks) ranks[row] = static_cast<int32_t>(kernels.count_above(x, x[ids[row]], logits.cols));
    if (!with_top) return;
    TopList list(top_ids.row(row), top.row(row), top_ids.cols);
    find_top(kernels, x, logits.cols, list);
    for (int64_t i = 0; i < top.cols; ++i) top.row(row)[i] = static_cast<float>(top.row(row)[i] - log_sum);
  });
}

}  // namespace turbomind::cpu
