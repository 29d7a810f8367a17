// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "ops.h"
#include "ops/row_loop.h"

namespace turbomind::cpu {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

struct Csr {
  const int32_t* offsets;
  const int32_t* ids;
};

struct PenaltyArgs {
  const float* repetition;
  const float* presence;
  const float* frequency;
};

// Penalties of one row: every token once, with how often it was generated.
class PenaltyRow {
 public:
  PenaltyRow(const PenaltyArgs& args, int64_t row)
      : repetition_(args.repetition ? args.repetition[row] : 1.0f),
        presence_(args.presence ? args.presence[row] : 0.0f),
        frequency_(args.frequency ? args.frequency[row] : 0.0f) {}

  void apply(float& logit, int32_t generated) const {
    logit = logit > 0.0f ? logit / repetition_ : logit * repetition_;
    if (generated > 0) logit -= presence_ + frequency_ * static_cast<float>(generated);
  }

 private:
  float repetition_;
  float presence_;
  float frequency_;
};

int32_t occurrences(const int32_t* ids, int64_t count, int32_t id) {
  int32_t found = 0;
  for (int64_t i = 0; i < count; ++i) found += ids[i] == id;
  return found;
}

}  // namespace

void CpuOps::logits_process(Stream& stream, const tm_logits_process_args& args, const tm_workspace&) {
  const Matrix<float> logits = matrix_arg<float>(args.logits, "logits");
  const PenaltyArgs penalties{vector_arg<float>(args.repetition_penalty, "repetition_penalty"),
                              vector_arg<float>(args.presence_penalty, "presence_penalty"),
                              vector_arg<float>(args.frequency_penalty, "frequency_penalty")};
  const Csr history{vector_arg<int32_t>(args.history_offsets, "history_offsets"),
                    vector_arg<int32_t>(args.history_ids, "history_ids")};
  const int32_t* counts = vector_arg<int32_t>(args.history_counts, "history_counts");
  const Csr bias{vector_arg<int32_t>(args.bias_offsets, "bias_offsets"),
                 vector_arg<int32_t>(args.bias_ids, "bias_ids")};
  const float* bias_values = vector_arg<float>(args.bias_values, "bias_values");
  const Matrix<int32_t> pending =
      given(args.pending) ? matrix_arg<int32_t>(args.pending, "pending") : Matrix<int32_t>{};
  const Matrix<uint32_t> mask =
      given(args.bitmask) ? matrix_arg<uint32_t>(args.bitmask, "bitmask") : Matrix<uint32_t>{};

  const auto valid = [&](int32_t id) { return id >= 0 && id < logits.cols; };
  const auto penalise = [&](int64_t row, float* x) {
    const PenaltyRow penalty(penalties, row);
    const int32_t* waiting = pending.data ? pending.row(row) : nullptr;
    const int64_t num_waiting = waiting ? pending.cols : 0;
    const int32_t begin = history.offsets ? history.offsets[row] : 0;
    const int32_t end = history.offsets ? history.offsets[row + 1] : 0;
    for (int32_t i = begin; i < end; ++i) {
      if (!valid(history.ids[i])) continue;
      penalty.apply(x[history.ids[i]], counts[i] + occurrences(waiting, num_waiting, history.ids[i]));
    }
    for (int64_t i = 0; i < num_waiting; ++i) {
      const bool listed = occurrences(history.ids + begin, end - begin, waiting[i]) > 0;
      const bool repeated = occurrences(waiting, i, waiting[i]) > 0;
      if (!valid(waiting[i]) || listed || repeated) continue;
      penalty.apply(x[waiting[i]], occurrences(waiting, num_waiting, waiting[i]));
    }
  };
  for_rows(stream, logits.rows, logits.cols, [&](int64_t row) {
    float* x = logits.row(row);
    if (penalties.repetition || penalties.presence || penalties.frequency) penalise(row, x);
    for (int32_t i = bias.offsets ? bias.offsets[row] : 0; bias.offsets && i < bias.offsets[row + 1]; ++i) {
      if (valid(bias.ids[i])) x[bias.ids[i]] += bias_values[i];
    }
    for (int64_t id = 0; mask.data && id < logits.cols; ++id) {
      if (!(mask.row(row)[id / 32] >> (id % 32) & 1u)) x[id] = kForbidden;
    }
  });
}

}  // namespace turbomind::cpu
