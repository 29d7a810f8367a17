// SPDX-License-Identifier: Apache-2.0
#include "paged.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace turbomind::conformance {

PagedCache::PagedCache(Case& c, DType dtype, const tm_kv_spec& spec, int64_t num_blocks)
    : case_(c), pool_(c.kv_pool(spec, num_blocks)) {
  keys_ = &c.input("keys", dtype, {num_places(), spec.num_kv_heads, spec.head_dim_k});
  values_ = &c.input("values", dtype, {num_places(), spec.num_kv_heads, spec.head_dim_v});
  write_plan_ = &c.plan(
      {.max_tokens = num_places(), .max_seqs = 1, .max_blocks_per_seq = num_blocks, .block_size = spec.block_size});
  write_plan_->captured = false;
  std::vector<int64_t> blocks(static_cast<size_t>(num_blocks));
  std::iota(blocks.begin(), blocks.end(), 0);
  write_plan_->set({num_places()}, {num_places()}, {blocks});
}

void PagedCache::fill(Random& random, double key_sigma) {
  keys_->fill_tabled_normal(random, key_sigma);
  values_->fill_tabled_normal(random);
}

void PagedCache::write_all() {
  case_.call(
      TM_OP_kv_write, case_.op().kv_write,
      tm_kv_write_args{.k = keys_->view(), .v = values_->view(), .kv = pool_, .plan = write_plan_->plan.handle()});
}

Arithmetic PagedCache::arithmetic() const {
  if (pool_.spec.dtype == TM_I8) return Arithmetic::kKvInt8;
  return pool_.spec.dtype == TM_F32 && keys_->dtype() == TM_F32 ? Arithmetic::kFloat32 : Arithmetic::kHalf;
}

reference::Values PagedCache::stored(const TestTensor& tensor, int64_t dim) const {
  reference::Values result = tensor.values();
  if (pool_.spec.dtype == tensor.dtype()) return result;
  if (pool_.spec.dtype != TM_I8) {
    for (double& value : result) value = reference::round_to(pool_.spec.dtype, value);
    return result;
  }
  for (size_t head = 0; head < result.size(); head += static_cast<size_t>(dim)) {
    double largest = 0;
    for (int64_t d = 0; d < dim; ++d) largest = std::max(largest, std::fabs(result[head + static_cast<size_t>(d)]));
    const double scale = largest / 127;
    for (int64_t d = 0; d < dim && scale > 0; ++d) {
      double& value = result[head + static_cast<size_t>(d)];
      value = std::nearbyint(value * 127 / largest) * scale;  // exact ties, which half precision makes often
    }
  }
  return result;
}

int64_t StepLayout::num_tokens() const { return std::accumulate(q_lens.begin(), q_lens.end(), int64_t{0}); }

int64_t StepLayout::place(size_t sequence, int64_t position, int64_t block_size) const {
  return table[sequence][static_cast<size_t>(position / block_size)] * block_size + position % block_size;
}

StepLayout draw_layout(Random& random, const std::vector<SequenceCase>& sequences, int64_t block_size,
                       int64_t num_blocks, int64_t shared_blocks) {
  StepLayout layout;
  const std::vector<int64_t> order = random.permutation(num_blocks);
  size_t next = static_cast<size_t>(shared_blocks);
  for (const SequenceCase& s : sequences) {
    const int64_t shorter = std::min<int64_t>(random.integer(0, 3), s.context_len - s.q_len);
    const int64_t context = s.context_len - shorter;
    layout.q_lens.push_back(s.q_len);
    layout.context_lens.push_back(context);
    const int64_t blocks = (s.context_len + block_size - 1) / block_size;
    const int64_t shared = (context - s.q_len) / block_size >= shared_blocks ? shared_blocks : 0;
    std::vector<int64_t> table(order.begin(), order.begin() + shared);
    while (static_cast<int64_t>(table.size()) < blocks) table.push_back(order.at(next++));
    layout.table.push_back(table);
  }
  return layout;
}

reference::Values paged_attention(const reference::Attention& problem, const StepLayout& step, int64_t block_size,
                                  const reference::Values& keys, const reference::Values& values,
                                  const reference::Values& q) {
  reference::Values out(static_cast<size_t>(step.num_tokens() * problem.q_heads * problem.dim_v));
  int64_t row = 0;
  for (size_t s = 0; s < step.q_lens.size(); ++s) {
    for (int64_t i = 0; i < step.q_lens[s]; ++i, ++row) {
      const int64_t position = step.context_lens[s] - step.q_lens[s] + i;
      const auto is_seen = [&](int64_t p) {
        if (problem.window > 0 && p <= position - problem.window) return false;
        return p <= position || std::any_of(step.spans.begin(), step.spans.end(), [&](const SpanCase& span) {
                 const auto holds = [&](int64_t place) { return span.begin <= place && place < span.end; };
                 return static_cast<size_t>(span.sequence) == s && holds(p) && holds(position);
               });
      };
      reference::AttendedRow attended;
      for (int64_t p = 0; p < step.context_lens[s]; ++p) {
        if (!is_seen(p)) continue;
        const int64_t place = step.place(s, p, block_size);
        attended.keys.push_back(keys.data() + place * problem.kv_heads * problem.dim_k);
        attended.values.push_back(values.data() + place * problem.kv_heads * problem.dim_v);
      }
      reference::attend(problem, q.data() + row * problem.q_heads * problem.dim_k, attended,
                        out.data() + row * problem.q_heads * problem.dim_v);
    }
  }
  return out;
}

}  // namespace turbomind::conformance
