// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "reference/ops.h"
#include "suite.h"

namespace turbomind::conformance {
namespace {

struct SampleCase {
  int64_t rows;
  int64_t vocabulary;
  double temperature = 1;
  int64_t top_k = 0;
  double top_p = 1;
  double min_p = 0;
  double sigma = 3;
  bool ties = false;       // few distinct logits
  bool forbidden = false;  // most logits are -inf
  bool mixed = false;      // every row its own parameters
  bool nothing = false;    // every second row is -inf throughout
};

// Candidates whose interval borders are nearer than this to a drawn number or a limit may change places in float32.
constexpr double kSlack = 2e-6;

struct SampleTensors {
  SampleTensors(Case& c, const SampleCase& p)
      : logits(c.input("logits", TM_F32, {p.rows, p.vocabulary}, p.rows > 1 ? 7 : 0)),
        temperature(c.input("temperature", TM_F32, {p.rows})),
        top_k(c.input("top_k", TM_I32, {p.rows})),
        top_p(c.input("top_p", TM_F32, {p.rows})),
        min_p(c.input("min_p", TM_F32, {p.rows})),
        seed(c.input("seed", TM_U64, {p.rows})),
        position(c.input("position", TM_I64, {p.rows})),
        out(c.output("out", TM_I32, {p.rows})) {}

  TestTensor &logits, &temperature, &top_k, &top_p, &min_p, &seed, &position, &out;
  std::vector<uint64_t> seeds;
  std::vector<uint64_t> positions;
};

void fill_sample(Random& random, SampleTensors& t, const SampleCase& p) {
  for (int64_t i = 0; i < t.logits.size(); ++i) {
    const bool forbid =
        (p.forbidden && random.integer(0, 9) != 0 && i % p.vocabulary != 3) || (p.nothing && i / p.vocabulary % 2 == 1);
    const double value = p.ties ? static_cast<double>(random.integer(0, 2)) : p.sigma * random.normal();
    t.logits.set(i, forbid ? -std::numeric_limits<double>::infinity() : value);
  }
  t.seeds.clear();
  t.positions.clear();
  for (int64_t i = 0; i < p.rows; ++i) {
    const bool own = p.mixed;
    t.temperature.set(i, own ? static_cast<double>(i % 4) * 0.5 : p.temperature);
    t.top_k.set(i, static_cast<double>(own ? i % 7 * 3 : p.top_k));
    t.top_p.set(i, own ? 1 - static_cast<double>(i % 5) * 0.2 : p.top_p);
    t.min_p.set(i, own ? static_cast<double>(i % 3) * 0.1 : p.min_p);
    t.seeds.push_back(random.next());
    // Beyond 32 bits once in a while: the high word is part of the counter.
    t.positions.push_back(static_cast<uint64_t>(random.integer(0, 100000)) + (i % 8 == 7 ? uint64_t{1} << 33 : 0));
    t.seed.set_word(i, t.seeds.back());
    t.position.set_word(i, t.positions.back());
  }
}

std::string verify_sample(const SampleTensors& t, const SampleCase& p) {
  const reference::Values logits = t.logits.values();
  for (int64_t i = 0; i < p.rows; ++i) {
    const auto index = static_cast<size_t>(i);
    const reference::SamplingRow row{.temperature = t.temperature.get(i),
                                     .top_k = static_cast<int64_t>(t.top_k.get(i)),
                                     .top_p = t.top_p.get(i),
                                     .min_p = t.min_p.get(i),
                                     .u = reference::uniform(t.seeds[index], t.positions[index])};
    const auto found = static_cast<int64_t>(t.out.result(i));
    const double* at = logits.data() + i * p.vocabulary;
    if (reference::sample_candidates(at, p.vocabulary, row, kSlack).count(found)) continue;
    return "row " + std::to_string(i) + ": expected token " + std::to_string(reference::sample(at, p.vocabulary, row)) +
           ", found " + std::to_string(found);
  }
  return {};
}

void build_sample(Case& c, const SampleCase& p) {
  auto tensors = std::make_shared<SampleTensors>(c, p);
  c.independent_rows = p.rows;
  c.fill = [&c, tensors, p] { fill_sample(c.random, *tensors, p); };
  c.issue = [&c, tensors](RowRange r) {
    const auto cut = [&](const TestTensor& tensor) { return tensor.rows(r.begin, r.count); };
    c.call(TM_OP_sample, c.op().sample,
           tm_sample_args{.logits = cut(tensors->logits),
                          .temperature = cut(tensors->temperature),
                          .top_k = cut(tensors->top_k),
                          .top_p = cut(tensors->top_p),
                          .min_p = cut(tensors->min_p),
                          .seed = cut(tensors->seed),
                          .position = cut(tensors->position),
                          .out = cut(tensors->out)});
  };
  c.verify = [tensors, p] { return verify_sample(*tensors, p); };
}

// Drawn tokens follow the distribution: a chi-square test over the positions of one seed.
void build_frequencies(Case& c) {
  constexpr int64_t kRows = 4096;
  constexpr int64_t kVocabulary = 8;
  const SampleCase p{.rows = kRows, .vocabulary = kVocabulary};
  auto tensors = std::make_shared<SampleTensors>(c, p);
  c.fill = [&c, tensors, p] {
    fill_sample(c.random, *tensors, p);
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t v = 0; v < kVocabulary; ++v) tensors->logits.set(i * kVocabulary + v, 0.3 * static_cast<double>(v));
      tensors->seed.set_word(i, 42);
      tensors->position.set_word(i, static_cast<uint64_t>(i));
    }
  };
  c.issue = [&c, tensors](RowRange) {
    c.call(TM_OP_sample, c.op().sample,
           tm_sample_args{.logits = tensors->logits.view(),
                          .temperature = tensors->temperature.view(),
                          .top_k = tensors->top_k.view(),
                          .top_p = tensors->top_p.view(),
                          .min_p = tensors->min_p.view(),
                          .seed = tensors->seed.view(),
                          .position = tensors->position.view(),
                          .out = tensors->out.view()});
  };
  c.verify = [tensors]() -> std::string {
    const reference::Values lp = reference::log_softmax(tensors->logits.values().data(), kVocabulary);
    reference::Values counts(kVocabulary, 0);
    for (int64_t i = 0; i < kRows; ++i) counts.at(static_cast<size_t>(tensors->out.result(i))) += 1;
    double chi_square = 0;
    for (size_t v = 0; v < kVocabulary; ++v) {
      const double expected = kRows * std::exp(lp[v]);
      chi_square += (counts[v] - expected) * (counts[v] - expected) / expected;
    }
    // 7 degrees of freedom: exceeded once in 10^5 seeds, and the seed is fixed.
    return chi_square < 34 ? "" : "chi-square of the drawn tokens is " + std::to_string(chi_square);
  };
}

}  // namespace

void add_sampling_cases(Suite& suite, const Session&) {
  const auto add = [&](const std::string& what, const SampleCase& p) {
    suite.add("sample", "f32", what, [=](Case& c) { build_sample(c, p); });
  };
  add("no_rows", {.rows = 0, .vocabulary = 10});
  add("vocabulary_of_one", {.rows = 2, .vocabulary = 1});
  add("greedy", {.rows = 9, .vocabulary = 1003, .temperature = 0});
  add("greedy_ties_to_the_lower_id", {.rows = 9, .vocabulary = 100, .temperature = 0, .ties = true});
  add("plain", {.rows = 33, .vocabulary = 1000});
  add("plain_long", {.rows = 3, .vocabulary = 49152});
  add("hot", {.rows = 17, .vocabulary = 300, .temperature = 10});
  add("cold", {.rows = 17, .vocabulary = 300, .temperature = 0.01});
  add("top_k_1", {.rows = 9, .vocabulary = 300, .top_k = 1});
  add("top_k_40", {.rows = 33, .vocabulary = 2000, .top_k = 40});
  add("top_k_beyond_vocabulary", {.rows = 9, .vocabulary = 20, .top_k = 50});
  add("top_p", {.rows = 33, .vocabulary = 2000, .top_p = 0.9});
  add("top_p_flat", {.rows = 9, .vocabulary = 5000, .top_p = 0.95, .sigma = 0.1});
  add("top_p_0", {.rows = 9, .vocabulary = 300, .top_p = 0});
  add("min_p", {.rows = 33, .vocabulary = 2000, .min_p = 0.05});
  add("min_p_1", {.rows = 9, .vocabulary = 300, .min_p = 1});
  add("all_limits", {.rows = 33, .vocabulary = 2000, .temperature = 0.8, .top_k = 50, .top_p = 0.9, .min_p = 0.02});
  add("ties", {.rows = 33, .vocabulary = 64, .top_k = 20, .ties = true});
  add("ties_top_p", {.rows = 33, .vocabulary = 64, .top_p = 0.31, .ties = true});
  add("forbidden_tokens", {.rows = 17, .vocabulary = 200, .top_p = 0.9, .forbidden = true});
  add("forbidden_tokens_top_k", {.rows = 17, .vocabulary = 200, .top_k = 40, .forbidden = true});
  add("mixed_rows", {.rows = 60, .vocabulary = 500, .mixed = true});
  add("nothing_allowed", {.rows = 60, .vocabulary = 500, .mixed = true, .nothing = true});
  add("nothing_allowed_plain", {.rows = 4, .vocabulary = 5000, .nothing = true});
  suite.add("sample", "f32", "frequencies", build_frequencies);
}

}  // namespace turbomind::conformance
