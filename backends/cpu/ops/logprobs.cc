// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops.h"
#include "ops/row_loop.h"

namespace turbomind::cpu {
namespace {

// The n ids with the largest logits, likeliest first, ties to the lower id.
std::vector<int32_t> largest_ids(const float* x, int64_t vocab, int64_t n) {
  const auto before = [x](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); };
  std::vector<int32_t> heap;  // its front is the worst kept
  for (int32_t id = 0; id < vocab; ++id) {
    if (static_cast<int64_t>(heap.size()) < n) {
      heap.push_back(id);
      std::push_heap(heap.begin(), heap.end(), before);
    } else if (before(id, heap.front())) {
      std::pop_heap(heap.begin(), heap.end(), before);
      heap.back() = id;
      std::push_heap(heap.begin(), heap.end(), before);
    }
  }
  std::sort_heap(heap.begin(), heap.end(), before);
  return heap;
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
  require(!with_top || top_ids.cols <= logits.cols, "top_ids", "at most " + std::to_string(logits.cols) + " columns");
  const LogitsKernels& kernels = stream.kernels().logits;
  stream.pool().parallel_for(logits.rows, [&](int64_t row) {
    const float* x = logits.row(row);
    const float max = x[kernels.argmax(x, logits.cols)];
    const double log_sum = max + std::log(kernels.exponential_sum(x, max, logits.cols));
    out[row] = static_cast<float>(x[ids[row]] - log_sum);
    if (ranks) ranks[row] = static_cast<int32_t>(kernels.count_above(x, x[ids[row]], logits.cols));
    if (!with_top) return;
    const std::vector<int32_t> best = largest_ids(x, logits.cols, top_ids.cols);
    for (size_t i = 0; i < best.size(); ++i) {
      top_ids.row(row)[i] = best[i];
      top.row(row)[i] = static_cast<float>(x[best[i]] - log_sum);
    }
  });
}

}  // namespace turbomind::cpu
