// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ops.h"
#include "ops/row_ranges.h"
#include "ops/tensor_args.h"

namespace turbomind::cpu {
namespace {

constexpr int64_t kMaskWordBits = 32;

// A list of token ids per row.
struct TokenLists {
  const int32_t* offsets;  // [rows + 1]; nullptr: no lists
  const int32_t* ids;

  int64_t begin(int64_t row) const { return offsets ? offsets[row] : 0; }
  int64_t end(int64_t row) const { return offsets ? offsets[row + 1] : 0; }
};

int32_t count_of(int32_t id, const int32_t* ids, int64_t count) {
  return static_cast<int32_t>(std::count(ids, ids + count, id));
}

// The op's arguments as typed views.
class LogitsProcessor {
 public:
  LogitsProcessor(const LogitsKernels& kernels, const tm_logits_process_args& args)
      : kernels_(kernels),
        logits_(matrix_arg<float>(args.logits, "logits")),
        repetition_(vector_arg<float>(args.repetition_penalty, "repetition_penalty")),
        presence_(vector_arg<float>(args.presence_penalty, "presence_penalty")),
        frequency_(vector_arg<float>(args.frequency_penalty, "frequency_penalty")),
        history_{vector_arg<int32_t>(args.history_offsets, "history_offsets"),
                 vector_arg<int32_t>(args.history_ids, "history_ids")},
        history_counts_(vector_arg<int32_t>(args.history_counts, "history_counts")),
        bias_{vector_arg<int32_t>(args.bias_offsets, "bias_offsets"), vector_arg<int32_t>(args.bias_ids, "bias_ids")},
        bias_values_(vector_arg<float>(args.bias_values, "bias_values")) {
    if (given(args.pending)) pending_ = matrix_arg<int32_t>(args.pending, "pending");
    if (given(args.bitmask)) bitmask_ = matrix_arg<uint32_t>(args.bitmask, "bitmask");
    require(!bitmask_.data || bitmask_.cols * kMaskWordBits >= logits_.cols, "bitmask", "a bit for every token");
  }

  int64_t rows() const { return logits_.rows; }
  int64_t row_cost() const { return bitmask_.data ? logits_.cols / 4 : 1024; }

  void run(int64_t row) const {
    if (repetition_ || presence_ || frequency_) {
      penalize_history(row);
      penalize_pending(row);
    }
    add_bias(row);
    if (bitmask_.data) kernels_.forbid(logits_.row(row), bitmask_.row(row), logits_.cols);
  }

 private:
  bool valid(int32_t id) const { return id >= 0 && id < logits_.cols; }

  // generated: how often the token was generated so far.
  void penalize(int64_t row, int32_t id, int32_t generated) const {
    if (!valid(id)) return;
    float& logit = logits_.row(row)[id];
    if (repetition_) logit = logit > 0.0f ? logit / repetition_[row] : logit * repetition_[row];
    if (generated <= 0) return;
    if (presence_) logit -= presence_[row];
    if (frequency_) logit -= frequency_[row] * static_cast<float>(generated);
  }

  void penalize_history(int64_t row) const {
    for (int64_t i = history_.begin(row); i < history_.end(row); ++i) {
      const int32_t id = history_.ids[i];
      const int32_t waiting = pending_.data ? count_of(id, pending_.row(row), pending_.cols) : 0;
      penalize(row, id, history_counts_[i] + waiting);
    }
  }

  // Pending tokens that the history does not list, each once.
  void penalize_pending(int64_t row) const {
    const int64_t begin = history_.begin(row);
    for (int64_t i = 0; pending_.data && i < pending_.cols; ++i) {
      const int32_t* waiting = pending_.row(row);
      if (count_of(waiting[i], waiting, i) > 0) continue;
      if (history_.offsets && count_of(waiting[i], history_.ids + begin, history_.end(row) - begin) > 0) continue;
      penalize(row, waiting[i], count_of(waiting[i], waiting, pending_.cols));
    }
  }

  void add_bias(int64_t row) const {
    for (int64_t i = bias_.begin(row); i < bias_.end(row); ++i) {
      if (valid(bias_.ids[i])) logits_.row(row)[bias_.ids[i]] += bias_values_[i];
    }
  }

  const LogitsKernels& kernels_;
  Matrix<float> logits_;
  const float* repetition_;
  const float* presence_;
  const float* frequency_;
  TokenLists history_;
  const int32_t* history_counts_;
  TokenLists bias_;
  const float* bias_values_;
  Matrix<int32_t> pending_{};
  Matrix<uint32_t> bitmask_{};
};

}  // namespace

void CpuOps::logits_process(Stream& stream, const tm_logits_process_args& args, const tm_workspace&) {
  const LogitsProcessor processor(stream.kernels().logits, args);
  for_row_ranges(stream.pool(), processor.rows(), processor.row_cost(), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) processor.run(row);
  });
}

}  // namespace turbomind::cpu
