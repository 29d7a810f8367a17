// SPDX-License-Identifier: Apache-2.0
//
// kv_write and kv_copy_blocks, seen through attention: a window of 1 reads each value back by itself, a full window
// shows the keys.
#include <algorithm>
#include <cmath>
#include <memory>

#include "paged.h"

namespace turbomind::conformance {
namespace {

constexpr int64_t kHeads = 2;
constexpr int64_t kDim = 64;
constexpr int64_t kNumBlocks = 9;

struct KvState {
  KvState(Case& c, DType dtype, const tm_kv_spec& spec) : cache(c, dtype, spec, kNumBlocks) {}
  PagedCache cache;
  StepLayout step;
  std::vector<int32_t> pairs;
};

tm_kv_spec kv_spec(const Session& session, DType kv_dtype) {
  return {.num_kv_heads = kHeads,
          .head_dim_k = kDim,
          .head_dim_v = kDim,
          .block_size = session.device.props().preferred_kv_block_size,
          .dtype = kv_dtype};
}

// Reads the whole pool, each block as a sequence of its own.
struct PoolReader {
  PoolReader(Case& c, KvState& state, DType dtype)
      : plan(c.plan({.max_tokens = state.cache.num_places(),
                     .max_seqs = kNumBlocks,
                     .max_blocks_per_seq = 1,
                     .block_size = state.cache.pool().spec.block_size})),
        q(c.input("q", dtype, {state.cache.num_places(), kHeads, kDim})),
        values_seen(c.output("values_seen", dtype, {state.cache.num_places(), kHeads, kDim})),
        keys_seen(c.output("keys_seen", dtype, {state.cache.num_places(), kHeads, kDim})) {
    const std::vector<int64_t> lengths(kNumBlocks, state.cache.pool().spec.block_size);
    for (int64_t block = 0; block < kNumBlocks; ++block) step.table.push_back({block});
    step.q_lens = step.context_lens = lengths;
    plan.set(step.q_lens, step.context_lens, step.table);
  }

  void issue(Case& c, KvState& state) const {
    for (const bool whole : {false, true}) {
      c.call(TM_OP_attention, c.op().attention,
             tm_attention_args{.q = q.view(),
                               .kv = state.cache.pool(),
                               .plan = plan.plan.handle(),
                               .scale = 0.125f,
                               .window = whole ? 0 : 1,
                               .out = (whole ? keys_seen : values_seen).view()});
    }
  }

  void expect(const KvState& state, const reference::Values& keys, const reference::Values& values) const {
    const int64_t block_size = state.cache.pool().spec.block_size;
    reference::Attention problem{
        .q_heads = kHeads, .kv_heads = kHeads, .dim_k = kDim, .dim_v = kDim, .scale = 0.125, .window = 1};
    values_seen.expected = paged_attention(problem, step, block_size, keys, values, q.values());
    problem.window = 0;
    keys_seen.expected = paged_attention(problem, step, block_size, keys, values, q.values());
  }

  TestPlan& plan;
  StepLayout step;
  TestTensor& q;
  TestTensor& values_seen;
  TestTensor& keys_seen;
};

// A ragged step's rows go into a pool that holds other tokens. padding: rows past the plan's tokens, not to be written.
void build_write(Case& c, const Session& session, DType dtype, DType kv_dtype, std::vector<SequenceCase> sequences,
                 int64_t padding, int64_t gap) {
  const tm_kv_spec spec = kv_spec(session, kv_dtype);
  auto state = std::make_shared<KvState>(c, dtype, spec);
  int64_t num_tokens = 0;
  for (const SequenceCase& s : sequences) num_tokens += s.q_len;
  const int64_t rows = num_tokens + padding;
  TestTensor& k = c.input("k", dtype, {rows, kHeads, kDim}, gap);
  TestTensor& v = c.input("v", dtype, {rows, kHeads, kDim}, gap);
  auto reader = std::make_shared<PoolReader>(c, *state, dtype);
  TestPlan& plan = c.plan({.max_tokens = rows + 1,
                           .max_seqs = static_cast<int64_t>(sequences.size()) + 1,
                           .max_blocks_per_seq = kNumBlocks,
                           .block_size = spec.block_size});
  plan.padding = padding;
  c.arithmetic = state->cache.arithmetic();
  c.fill = [&c, state, reader, &k, &v, &plan, sequences, spec] {
    state->cache.fill(c.random);
    reader->q.fill_normal(c.random);
    k.fill_normal(c.random);
    v.fill_normal(c.random);
    state->step = draw_layout(c.random, sequences, spec.block_size, kNumBlocks, 0);
    plan.set(state->step.q_lens, state->step.context_lens, state->step.table);
  };
  c.setup = [state] { state->cache.write_all(); };
  c.issue = [&c, state, reader, &k, &v, &plan](RowRange) {
    c.call(TM_OP_kv_write, c.op().kv_write,
           tm_kv_write_args{.k = k.view(), .v = v.view(), .kv = state->cache.pool(), .plan = plan.plan.handle()});
    reader->issue(c, *state);
  };
  c.reference = [state, reader, &k, &v, spec] {
    // The rows take the place of what the cache held, before rounding.
    TestTensor& keys = state->cache.keys();
    TestTensor& values = state->cache.values();
    const reference::Values old_keys = keys.values();
    const reference::Values old_values = values.values();
    int64_t row = 0;
    for (size_t s = 0; s < state->step.q_lens.size(); ++s) {
      for (int64_t i = 0; i < state->step.q_lens[s]; ++i, ++row) {
        const int64_t position = state->step.context_lens[s] - state->step.q_lens[s] + i;
        const int64_t place = state->step.place(s, position, spec.block_size);
        for (int64_t d = 0; d < kHeads * kDim; ++d) {
          keys.set(place * kHeads * kDim + d, k.get(row * kHeads * kDim + d));
          values.set(place * kHeads * kDim + d, v.get(row * kHeads * kDim + d));
        }
      }
    }
    reader->expect(*state, state->cache.stored_keys(), state->cache.stored_values());
    keys.set_all(old_keys);
    values.set_all(old_values);
  };
}

void build_copy(Case& c, const Session& session, DType dtype, DType kv_dtype, int64_t num_pairs) {
  const tm_kv_spec spec = kv_spec(session, kv_dtype);
  auto state = std::make_shared<KvState>(c, dtype, spec);
  auto reader = std::make_shared<PoolReader>(c, *state, dtype);
  c.arithmetic = state->cache.arithmetic();
  c.capturable = false;
  c.fill = [&c, state, reader, num_pairs] {
    state->cache.fill(c.random);
    reader->q.fill_normal(c.random);
    const std::vector<int64_t> order = c.random.permutation(kNumBlocks);
    state->pairs.clear();
    // One source serves several targets.
    for (int64_t i = 0; i < num_pairs; ++i) {
      state->pairs.push_back(static_cast<int32_t>(order[0]));
      state->pairs.push_back(static_cast<int32_t>(order[static_cast<size_t>(i) + 1]));
    }
  };
  c.setup = [state] { state->cache.write_all(); };
  c.issue = [&c, state, reader, num_pairs](RowRange) {
    std::vector<int32_t> pairs = state->pairs;
    c.call(TM_OP_kv_copy_blocks, c.op().kv_copy_blocks,
           tm_kv_copy_blocks_args{.kv = state->cache.pool(), .pairs = pairs.data(), .num_pairs = num_pairs});
    std::fill(pairs.begin(), pairs.end(), -1);  // the op has copied them
    reader->issue(c, *state);
  };
  c.reference = [state, reader, num_pairs, spec] {
    reference::Values keys = state->cache.stored_keys();
    reference::Values values = state->cache.stored_values();
    const std::ptrdiff_t block = spec.block_size * kHeads * kDim;
    for (int64_t i = 0; i < num_pairs; ++i) {
      const std::ptrdiff_t from = state->pairs[static_cast<size_t>(2 * i)] * block;
      const std::ptrdiff_t to = state->pairs[static_cast<size_t>(2 * i + 1)] * block;
      std::copy_n(keys.begin() + from, block, keys.begin() + to);
      std::copy_n(values.begin() + from, block, values.begin() + to);
    }
    reader->expect(*state, keys, values);
  };
}

// Export of two blocks, import into two others: the exchange form holds the values, and attention sees them there.
void build_exchange(Case& c, const Session& session, DType dtype, DType kv_dtype, tm_memory_kind memory) {
  const tm_kv_api& kv = session.device.plugin().kv();
  if (!kv.export_blocks || !kv.import_blocks) throw NotOffered{"export_blocks and import_blocks are NULL"};
  const tm_kv_spec spec = kv_spec(session, kv_dtype);
  auto state = std::make_shared<KvState>(c, dtype, spec);
  auto reader = std::make_shared<PoolReader>(c, *state, dtype);
  const int64_t block = spec.block_size * kHeads * kDim;
  TestTensor& elements = c.output("exchange", kv_dtype, {2, 2, block});  // k of both ids, then v
  TestTensor& scales = c.output("scales", TM_F32, {kv_dtype == TM_I8 ? 2 : 0, 2, spec.block_size * kHeads});
  auto exchange = std::make_shared<Buffer>(session.device, nbytes(elements.view()) + nbytes(scales.view()), memory);
  const tm_copy_kind kind = memory == TM_MEMORY_PINNED_HOST ? TM_HOST_TO_DEVICE : TM_DEVICE_TO_DEVICE;
  c.capturable = false;
  c.setup = [state] { state->cache.write_all(); };
  c.issue = [&c, &kv, &elements, &scales, state, reader, exchange, kind](RowRange) {
    const int32_t from[] = {3, 0};
    const int32_t to[] = {5, 8};
    const Plugin& plugin = c.device().plugin();
    const tm_kv_pool pool = state->cache.pool();
    plugin.check_status(kv.export_blocks(c.stream().handle(), &pool, from, 2, exchange->data()), "export_blocks");
    plugin.check_status(kv.import_blocks(c.stream().handle(), &pool, to, 2, exchange->data()), "import_blocks");
    reader->issue(c, *state);
    const size_t bytes = nbytes(elements.view());
    c.stream().copy(elements.view().data, exchange->data(), bytes, kind);
    c.stream().copy(scales.view().data, static_cast<char*>(exchange->data()) + bytes, nbytes(scales.view()), kind);
  };
  c.reference = [&elements, &scales, state, reader, block, kv_dtype] {
    reference::Values keys = state->cache.stored_keys();
    reference::Values values = state->cache.stored_values();
    for (const reference::Values* side : {&keys, &values}) {
      for (const int64_t from : {3, 0}) {
        elements.expected.insert(elements.expected.end(), side->begin() + from * block,
                                 side->begin() + (from + 1) * block);
      }
    }
    for (const auto& [from, to] : {std::pair<int64_t, int64_t>{3, 5}, {0, 8}}) {
      std::copy_n(keys.begin() + from * block, block, keys.begin() + to * block);
      std::copy_n(values.begin() + from * block, block, values.begin() + to * block);
    }
    reader->expect(*state, keys, values);
  };
  const Arithmetic arithmetic = state->cache.arithmetic();
  c.verify = [&elements, &scales, reader, arithmetic, dtype, kv_dtype] {
    for (const TestTensor* seen : {&reader->values_seen, &reader->keys_seen}) {
      const std::string wrong = compare(seen->results(), seen->expected, tolerance(arithmetic, dtype));
      if (!wrong.empty()) return seen->name() + ": " + wrong;
    }
    reference::Values found = elements.results();
    if (kv_dtype != TM_I8) return compare(found, elements.expected, tolerance(Arithmetic::kExact, kv_dtype));
    // k of both ids, then v; but the scales per id, k and v.
    for (int64_t i = 0; i < elements.size(); ++i) {
      const int64_t side = i / (elements.size() / 2);
      const int64_t id = i % (elements.size() / 2) / (elements.size() / 4);
      const int64_t place = i % (elements.size() / 4) / kDim;
      found[static_cast<size_t>(i)] *= scales.result((id * 2 + side) * (scales.size() / 4) + place);
    }
    return compare(found, elements.expected, tolerance(Arithmetic::kFloat32, TM_F32));
  };
}

}  // namespace

void add_kv_cases(Suite& suite, const Session& session) {
  const std::vector<DType> kv_dtypes = session.kv_dtypes();
  for (const DType dtype : session.activation_dtypes()) {
    for (const DType kv_dtype : kv_dtypes) {
      const std::string variant = std::string(dtype_name(dtype)) + "_kv_" + dtype_name(kv_dtype);
      const auto add = [&](const std::string& what, const std::vector<SequenceCase>& sequences, int64_t padding,
                           int64_t gap) {
        suite.add("kv_write", variant, what,
                  [=, &session](Case& c) { build_write(c, session, dtype, kv_dtype, sequences, padding, gap); });
      };
      add("no_tokens", {}, 0, 0);
      add("decode", {{1, 20}, {1, 1}, {1, 40}}, 0, 0);
      add("mixed", {{1, 21}, {19, 30}, {2, 2}}, 0, 0);
      add("padding_is_not_written", {{1, 21}, {1, 9}}, 3, 0);
      add("strided", {{7, 9}, {1, 17}}, 0, 128);
      for (const int64_t pairs : {0, 1, 4}) {
        suite.add("kv_copy_blocks", variant, "pairs" + std::to_string(pairs),
                  [=, &session](Case& c) { build_copy(c, session, dtype, kv_dtype, pairs); });
      }
      for (const tm_memory_kind memory : {TM_MEMORY_DEVICE, TM_MEMORY_PINNED_HOST}) {
        suite.add("kv_exchange", variant, memory == TM_MEMORY_DEVICE ? "two_blocks" : "two_blocks_by_the_host",
                  [=, &session](Case& c) { build_exchange(c, session, dtype, kv_dtype, memory); });
      }
    }
  }
}

}  // namespace turbomind::conformance
