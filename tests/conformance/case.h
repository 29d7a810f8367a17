// SPDX-License-Identifier: Apache-2.0
//
// One conformance case: tensors, a call and a reference. The runner (runner.h) does with it everything the contract
// promises: compares, repeats, replays, splits rows.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "reference/weights.h"
#include "test_tensor.h"
#include "tolerance.h"
#include "turbomind/ops/ops.h"

namespace turbomind::conformance {

// Thrown while a case is built: the backend says it does not offer this, which the contract allows.
struct NotOffered {
  std::string reason;
};

struct RowRange {
  int64_t begin;
  int64_t count;
};

// A packed random weight and its values.
struct TestWeight {
  reference::Values values;  // [rows, cols]
  PackedWeight packed;
  const tm_weight* handle() const { return packed.handle(); }
};

struct WeightOptions {
  tm_compute compute = TM_COMPUTE_DEFAULT;
  bool is_embedding = false;
  int num_parts = 1;         // rows split over so many parts
  int32_t num_experts = 0;   // rows are per expert; one part each
  int64_t skipped_rows = 0;  // the weight is a slice of a larger one: so many rows before it,
  int64_t skipped_cols = 0;  // and so many columns on either side; whole blocks of codes, not always of scales
  float global_scale = 0;
  tm_dtype activation = TM_F32;  // of the x it meets
};

// A plan with host metadata that a fill may change between runs.
struct TestPlan {
  TestPlan(const Device& device, const tm_plan_limits& limits) : plan(device, limits), block_size(limits.block_size) {}

  // q_lens and context_lens per sequence; table[s]: the sequence's blocks. Both may be empty (attention_dense).
  void set(const std::vector<int64_t>& q_lens, const std::vector<int64_t>& context_lens,
           const std::vector<std::vector<int64_t>>& table);
  // for_graph: the step is captured or replayed, so its padded shape is stated even without padding.
  void update(Stream& stream, bool for_graph);

  Plan plan;
  int32_t block_size;
  bool captured = true;   // false: used by a case's setup only
  int64_t padding = 0;    // token rows past the sequences' own
  int64_t max_q_len = 0;  // set() finds it
  std::vector<int32_t> cu_seqlens_q;
  std::vector<int32_t> context_lens;
  std::vector<int32_t> block_table;
  int64_t table_stride = 0;
  std::vector<int32_t> spans;  // [n, 3], as in tm_step_meta
};

class Case {
 public:
  Case(const Device& device, Stream& stream, uint64_t seed) : random(seed), device_(device), stream_(stream) {}

  TestTensor& input(std::string name, DType dtype, std::vector<int64_t> shape, int64_t row_gap = 0);
  TestTensor& output(std::string name, DType dtype, std::vector<int64_t> shape, int64_t row_gap = 0);
  TestTensor& in_out(std::string name, DType dtype, std::vector<int64_t> shape, int64_t row_gap = 0);
  // Throws NotOffered if query() refuses it.
  TestWeight& weight(tm_weight_format format, int64_t rows, int64_t cols, const WeightOptions& options = {});
  // A whole matrix, without its values. Throws NotOffered if query() refuses it.
  TestWeight pack(const reference::RawWeight& raw, tm_dtype activation) const;
  TestPlan& plan(const tm_plan_limits& limits);
  // A pool with guard bytes. Throws NotOffered if the backend refuses the spec.
  tm_kv_pool kv_pool(const tm_kv_spec& spec, int64_t num_blocks);

  // Calls the backend's slot (not the op front) with a poisoned workspace of exactly the size asked for. A case whose
  // op is optional and NULL throws NotOffered.
  template <class Args>
  void call(tm_op_id op, tm_status (*slot)(tm_stream*, const Args*, const tm_workspace*), Args args);

  const tm_op_api& op() const { return device_.plugin().op(); }
  const Device& device() const { return device_; }
  Stream& stream() const { return stream_; }

  // Writes the inputs' host values; the default fills float inputs with normal numbers. Runs again before a replay.
  std::function<void()> fill;
  // Calls that are not under test, before each run; never captured.
  std::function<void()> setup;
  // The call under test, on all rows or (row_independent cases) on some.
  std::function<void(RowRange)> issue;
  // Computes `expected` of the outputs from the inputs' values.
  std::function<void()> reference;
  // Instead of a comparison with `expected`: empty or what is wrong with the results.
  std::function<std::string()> verify;
  Arithmetic arithmetic = Arithmetic::kFloat32;
  std::optional<Tolerance> tolerance;  // instead of the table's, where a case measures something else
  bool capturable = true;
  int64_t independent_rows = 0;  // > 0: rows [0, n) may be issued alone and must give the same bits
  Random random;

  std::deque<TestTensor>& tensors() { return tensors_; }
  std::deque<TestPlan>& plans() { return plans_; }
  // Before each run: zeroes pools, as the core does, and fills workspaces with a pattern that is NaN in every float
  // dtype.
  void reset_scratch();
  // Lets the next call use the first workspace again, as it is.
  void reuse_scratch() { next_workspace_ = 0; }
  // After each run: empty, or which workspace or pool was written beyond the bytes asked for.
  std::string changed_guards();

 private:
  // A workspace or pool: guard bytes, the bytes asked for, guard bytes.
  struct Scratch {
    Buffer buffer;
    size_t bytes;
  };
  tm_workspace next_workspace(size_t bytes);

  const Device& device_;
  Stream& stream_;
  std::deque<TestTensor> tensors_;
  std::deque<TestWeight> weights_;
  std::deque<TestPlan> plans_;
  std::deque<Scratch> pools_;
  std::deque<Scratch> workspaces_;  // the i-th call of every run uses the i-th
  size_t next_workspace_ = 0;
};

template <class Args>
void Case::call(tm_op_id op, tm_status (*slot)(tm_stream*, const Args*, const tm_workspace*), Args args) {
  if (!slot) throw NotOffered{std::string("the ") + op_name(op) + " slot is NULL"};
  args.struct_size = sizeof args;
  const Plugin& plugin = device_.plugin();
  size_t bytes = 0;
  plugin.check_status(plugin.op().workspace_size(device_.handle(), op, &args, &bytes), op_name(op));
  const tm_workspace workspace = next_workspace(bytes);
  plugin.check_status(slot(stream_.handle(), &args, &workspace), op_name(op));
}

}  // namespace turbomind::conformance
