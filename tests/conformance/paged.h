// SPDX-License-Identifier: Apache-2.0
//
// A paged KV cache under test: the contents of every place, and steps over sequences laid out in it.
#pragma once

#include <vector>

#include "reference/ops.h"
#include "suite.h"

namespace turbomind::conformance {

// q_len new rows of a context of context_len tokens, both counted at the largest fill.
struct SequenceCase {
  int64_t q_len;
  int64_t context_len;
};

class PagedCache {
 public:
  // Blocks enough for num_blocks; every place of a used block is written through kv_write before each run.
  PagedCache(Case& c, DType dtype, const tm_kv_spec& spec, int64_t num_blocks);

  const tm_kv_pool& pool() const { return pool_; }
  int64_t num_places() const { return pool_.num_blocks * pool_.spec.block_size; }
  TestTensor& keys() { return *keys_; }      // [places, kv_heads, dim_k]
  TestTensor& values() { return *values_; }  // [places, kv_heads, dim_v]

  // Random keys and values.
  void fill(Random& random, double key_sigma = 1);
  // Writes all places: one sequence whose block table is every block in order.
  void write_all();
  TestPlan& write_plan() { return *write_plan_; }
  // As stored: rounded to the pool's dtype (8-bit codes times their scale).
  reference::Values stored_keys() const { return stored(*keys_, pool_.spec.head_dim_k); }
  reference::Values stored_values() const { return stored(*values_, pool_.spec.head_dim_v); }
  Arithmetic arithmetic() const;

 private:
  reference::Values stored(const TestTensor& tensor, int64_t dim) const;

  Case& case_;
  tm_kv_pool pool_;
  TestTensor* keys_;
  TestTensor* values_;
  TestPlan* write_plan_;
};

// Positions [begin, end) of a sequence that see each other.
struct SpanCase {
  int32_t sequence;
  int32_t begin;
  int32_t end;
};

// A step's sequences in blocks of a cache, newly drawn at every layout().
struct StepLayout {
  std::vector<int64_t> q_lens;
  std::vector<int64_t> context_lens;
  std::vector<std::vector<int64_t>> table;
  std::vector<SpanCase> spans{};

  int64_t num_tokens() const;
  // Place of a position of a sequence.
  int64_t place(size_t sequence, int64_t position, int64_t block_size) const;
};

// Contexts up to 3 tokens shorter than given (so that replays differ), blocks in random order; the first shared_blocks
// of every sequence that has as many full blocks are the same blocks.
StepLayout draw_layout(Random& random, const std::vector<SequenceCase>& sequences, int64_t block_size,
                       int64_t num_blocks, int64_t shared_blocks);

// Attention of the step's rows over the stored cache. q: [T, q_heads, dim_k].
reference::Values paged_attention(const reference::Attention& problem, const StepLayout& step, int64_t block_size,
                                  const reference::Values& keys, const reference::Values& values,
                                  const reference::Values& q);

}  // namespace turbomind::conformance
