// SPDX-License-Identifier: Apache-2.0
//
// logits_process and logprobs.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <numeric>

#include "reference/ops.h"
#include "suite.h"

namespace turbomind::conformance {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct ProcessCase {
  int64_t rows;
  int64_t vocabulary;
  bool penalties = false;
  bool history = false;
  bool pending = false;
  bool bias = false;
  bool bitmask = false;
  int64_t gap = 0;
};

constexpr int64_t kListLength = 6;  // history and bias entries per row: row i has i % (kListLength + 1)
constexpr int64_t kPending = 2;

int64_t list_length(int64_t row) { return row % (kListLength + 1); }

int64_t total_length(int64_t rows) {
  int64_t total = 0;
  for (int64_t i = 0; i < rows; ++i) total += list_length(i);
  return total;
}

struct ProcessTensors {
  ProcessTensors(Case& c, const ProcessCase& p)
      : logits(c.in_out("logits", TM_F32, {p.rows, p.vocabulary}, p.gap)),
        repetition(c.input("repetition_penalty", TM_F32, {p.rows})),
        presence(c.input("presence_penalty", TM_F32, {p.rows})),
        frequency(c.input("frequency_penalty", TM_F32, {p.rows})),
        history_offsets(c.input("history_offsets", TM_I32, {p.rows + 1})),
        history_ids(c.input("history_ids", TM_I32, {total_length(p.rows)})),
        history_counts(c.input("history_counts", TM_I32, {total_length(p.rows)})),
        pending(c.input("pending", TM_I32, {p.rows, kPending})),
        bias_offsets(c.input("bias_offsets", TM_I32, {p.rows + 1})),
        bias_ids(c.input("bias_ids", TM_I32, {total_length(p.rows)})),
        bias_values(c.input("bias_values", TM_F32, {total_length(p.rows)})),
        bitmask(c.input("bitmask", TM_U32, {p.rows, (p.vocabulary + 31) / 32})) {}

  TestTensor &logits, &repetition, &presence, &frequency, &history_offsets, &history_ids, &history_counts, &pending,
      &bias_offsets, &bias_ids, &bias_values, &bitmask;
};

// Distinct ids per row for a CSR list.
void fill_list(Random& random, TestTensor& offsets, TestTensor& ids, int64_t rows, int64_t vocabulary) {
  int64_t at = 0;
  for (int64_t i = 0; i < rows; ++i) {
    offsets.set(i, static_cast<double>(at));
    const std::vector<int64_t> order = random.permutation(vocabulary);
    for (int64_t j = 0; j < list_length(i); ++j) ids.set(at++, static_cast<double>(order[static_cast<size_t>(j)]));
  }
  offsets.set(rows, static_cast<double>(at));
}

void fill_process(Random& random, const ProcessTensors& t, const ProcessCase& p) {
  t.logits.fill_normal(random, 4);
  t.repetition.fill_uniform(random, 1, 1.5);
  t.presence.fill_uniform(random, -0.5, 1);
  t.frequency.fill_uniform(random, 0, 0.5);
  fill_list(random, t.history_offsets, t.history_ids, p.rows, p.vocabulary);
  fill_list(random, t.bias_offsets, t.bias_ids, p.rows, p.vocabulary);
  // A token that one entry moves and another forbids.
  for (int64_t i = 0; i < p.rows; ++i) {
    const auto end = static_cast<int64_t>(t.bias_offsets.get(i + 1));
    if (list_length(i) > 1) t.bias_ids.set(end - 1, t.bias_ids.get(end - 2));
  }
  for (int64_t i = 0; i < t.history_counts.size(); ++i) {
    t.history_counts.set(i, static_cast<double>(random.integer(0, 3)));
    t.bias_values.set(i, random.integer(0, 4) == 0 ? -kInfinity : 3 * random.normal());
  }
  for (int64_t i = 0; i < p.rows; ++i) {
    const auto end = static_cast<int64_t>(t.bias_offsets.get(i + 1));
    if (list_length(i) > 1) t.bias_values.set(end - 1 - i % 2, -kInfinity);
  }
  // Pending tokens: none, one from the row's history, any, or the same twice.
  for (int64_t i = 0; i < p.rows; ++i) {
    const auto first = static_cast<int64_t>(t.history_offsets.get(i));
    const double known = list_length(i) ? t.history_ids.get(first) : 0;
    const double any = static_cast<double>(random.integer(0, p.vocabulary - 1));
    const double choices[4][2] = {{-1, -1}, {known, -1}, {any, any}, {known, any}};
    for (int64_t j = 0; j < kPending; ++j) t.pending.set(i * kPending + j, choices[i % 4][j]);
  }
  for (int64_t i = 0; i < t.bitmask.size(); ++i) t.bitmask.set_word(i, random.next() | random.next());
}

// One row as the contract describes it.
void process_row(const ProcessTensors& t, const ProcessCase& p, int64_t row, double* logits) {
  std::map<int64_t, double> counts;  // of listed or pending tokens
  if (p.history) {
    for (auto i = static_cast<int64_t>(t.history_offsets.get(row)); i < t.history_offsets.get(row + 1); ++i) {
      counts[static_cast<int64_t>(t.history_ids.get(i))] += t.history_counts.get(i);
    }
  }
  for (int64_t j = 0; p.pending && j < kPending; ++j) {
    const auto id = static_cast<int64_t>(t.pending.get(row * kPending + j));
    if (id >= 0) counts[id] += 1;
  }
  for (const auto& [id, count] : counts) {
    if (!p.penalties) continue;
    double& logit = logits[id];
    logit = logit > 0 ? logit / t.repetition.get(row) : logit * t.repetition.get(row);
    if (count > 0) logit -= t.presence.get(row) + t.frequency.get(row) * count;
  }
  if (p.bias) {
    for (auto i = static_cast<int64_t>(t.bias_offsets.get(row)); i < t.bias_offsets.get(row + 1); ++i) {
      logits[static_cast<int64_t>(t.bias_ids.get(i))] += t.bias_values.get(i);
    }
  }
  for (int64_t v = 0; p.bitmask && v < p.vocabulary; ++v) {
    const auto word = static_cast<uint32_t>(t.bitmask.get(row * t.bitmask.row_size() + v / 32));
    if (!(word >> (v % 32) & 1)) logits[v] = -kInfinity;
  }
}

void build_process(Case& c, const ProcessCase& p) {
  auto tensors = std::make_shared<ProcessTensors>(c, p);
  c.fill = [&c, tensors, p] { fill_process(c.random, *tensors, p); };
  c.issue = [&c, tensors, p](RowRange) {
    const ProcessTensors& t = *tensors;
    const auto given = [](bool condition, const TestTensor& tensor) { return condition ? tensor.view() : Tensor{}; };
    c.call(TM_OP_logits_process, c.op().logits_process,
           tm_logits_process_args{.logits = t.logits.view(),
                                  .repetition_penalty = given(p.penalties, t.repetition),
                                  .presence_penalty = given(p.penalties, t.presence),
                                  .frequency_penalty = given(p.penalties, t.frequency),
                                  .history_offsets = given(p.history, t.history_offsets),
                                  .history_ids = given(p.history, t.history_ids),
                                  .history_counts = given(p.history, t.history_counts),
                                  .pending = given(p.pending, t.pending),
                                  .bias_offsets = given(p.bias, t.bias_offsets),
                                  .bias_ids = given(p.bias, t.bias_ids),
                                  .bias_values = given(p.bias, t.bias_values),
                                  .bitmask = given(p.bitmask, t.bitmask)});
  };
  c.reference = [tensors, p] {
    TestTensor& logits = tensors->logits;
    logits.expected = logits.values();
    for (int64_t i = 0; i < p.rows; ++i) process_row(*tensors, p, i, logits.expected.data() + i * p.vocabulary);
  };
}

struct LogprobsCase {
  int64_t rows;
  int64_t vocabulary;
  int64_t num_top = 0;  // 0: not asked for
  bool ranks = true;
  bool ties = false;
  bool forbidden = false;  // some logits are -inf
  double sigma = 4;
};

void build_logprobs(Case& c, const LogprobsCase& p) {
  TestTensor& logits = c.input("logits", TM_F32, {p.rows, p.vocabulary}, p.rows > 1 ? 5 : 0);
  TestTensor& ids = c.input("ids", TM_I32, {p.rows});
  TestTensor& logprobs = c.output("logprobs", TM_F32, {p.rows});
  TestTensor* ranks = p.ranks ? &c.output("ranks", TM_I32, {p.rows}) : nullptr;
  TestTensor* top_ids = p.num_top ? &c.output("top_ids", TM_I32, {p.rows, p.num_top}) : nullptr;
  TestTensor* top_logprobs = p.num_top ? &c.output("top_logprobs", TM_F32, {p.rows, p.num_top}) : nullptr;
  c.independent_rows = p.rows;
  c.fill = [&c, &logits, &ids, p] {
    for (int64_t i = 0; i < logits.size(); ++i) {
      const bool forbid = p.forbidden && i % p.vocabulary > 0 && c.random.integer(0, 3) == 0;
      const double value = p.ties ? static_cast<double>(c.random.integer(0, 5)) : p.sigma * c.random.normal();
      logits.set(i, forbid ? -kInfinity : value);
    }
    for (int64_t i = 0; i < p.rows; ++i) ids.set(i, static_cast<double>(c.random.integer(0, p.vocabulary - 1)));
  };
  c.issue = [&c, &logits, &ids, &logprobs, ranks, top_ids, top_logprobs](RowRange r) {
    const auto given = [&](TestTensor* t) { return t ? t->rows(r.begin, r.count) : Tensor{}; };
    c.call(TM_OP_logprobs, c.op().logprobs,
           tm_logprobs_args{.logits = logits.rows(r.begin, r.count),
                            .ids = ids.rows(r.begin, r.count),
                            .logprobs = logprobs.rows(r.begin, r.count),
                            .ranks = given(ranks),
                            .top_ids = given(top_ids),
                            .top_logprobs = given(top_logprobs)});
  };
  c.reference = [&logits, &ids, &logprobs, ranks, top_ids, top_logprobs, p] {
    const reference::Values all = logits.values();
    for (int64_t row = 0; row < p.rows; ++row) {
      const double* at = all.data() + row * p.vocabulary;
      const reference::Values lp = reference::log_softmax(at, p.vocabulary);
      const auto id = static_cast<size_t>(ids.get(row));
      logprobs.expected.push_back(lp[id]);
      if (ranks) {
        const auto larger = std::count_if(at, at + p.vocabulary, [&](double x) { return x > at[id]; });
        ranks->expected.push_back(static_cast<double>(larger));
      }
      if (!top_ids) continue;
      std::vector<size_t> order(lp.size());
      std::iota(order.begin(), order.end(), size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return at[a] > at[b]; });
      for (int64_t j = 0; j < p.num_top; ++j) {
        top_ids->expected.push_back(static_cast<double>(order[static_cast<size_t>(j)]));
        top_logprobs->expected.push_back(lp[order[static_cast<size_t>(j)]]);
      }
    }
  };
}

}  // namespace

void add_logits_cases(Suite& suite, const Session&) {
  const auto add_process = [&](const std::string& what, const ProcessCase& p) {
    suite.add("logits_process", "f32", what, [=](Case& c) { build_process(c, p); });
  };
  add_process("no_rows", {.rows = 0, .vocabulary = 40, .bitmask = true});
  add_process("nothing_given", {.rows = 3, .vocabulary = 40});
  add_process("penalties", {.rows = 9, .vocabulary = 100, .penalties = true, .history = true});
  add_process("pending_only", {.rows = 9, .vocabulary = 100, .penalties = true, .pending = true});
  add_process("penalties_and_pending",
              {.rows = 15, .vocabulary = 101, .penalties = true, .history = true, .pending = true, .gap = 3});
  add_process("bias", {.rows = 9, .vocabulary = 77, .bias = true});
  add_process("bitmask", {.rows = 5, .vocabulary = 75, .bitmask = true});
  add_process("everything", {.rows = 17,
                             .vocabulary = 1000,
                             .penalties = true,
                             .history = true,
                             .pending = true,
                             .bias = true,
                             .bitmask = true});
  const auto add_logprobs = [&](const std::string& what, const LogprobsCase& p) {
    suite.add("logprobs", "f32", what, [=](Case& c) { build_logprobs(c, p); });
  };
  add_logprobs("no_rows", {.rows = 0, .vocabulary = 40, .num_top = 2});
  add_logprobs("one_token", {.rows = 1, .vocabulary = 1, .num_top = 1});
  add_logprobs("chosen_only", {.rows = 4, .vocabulary = 100, .ranks = false});
  add_logprobs("top_5", {.rows = 7, .vocabulary = 1001, .num_top = 5});
  add_logprobs("ties", {.rows = 7, .vocabulary = 64, .num_top = 20, .ties = true});
  add_logprobs("all_of_the_vocabulary", {.rows = 2, .vocabulary = 20, .num_top = 20});
  add_logprobs("forbidden_tokens", {.rows = 5, .vocabulary = 100, .num_top = 3, .forbidden = true});
  add_logprobs("large_logits", {.rows = 3, .vocabulary = 300, .num_top = 3, .sigma = 300});
  add_logprobs("long", {.rows = 2, .vocabulary = 50021, .num_top = 20});
}

}  // namespace turbomind::conformance
