// SPDX-License-Identifier: Apache-2.0
//
// The engine on the plug-in under test, and what the double-precision reference says of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "engine/engine_driver.h"
#include "model/reference_decoder.h"
#include "model/tiny_model.h"

namespace turbomind::test {

inline EngineOptions exact_options() {
  EngineOptions options;
  options.backend = TM_BACKEND_UNDER_TEST;
  options.plugin_paths = {TM_PLUGIN_UNDER_TEST};
  options.backend_config = {{"deterministic", "1"}};
  options.compute_dtype = "float32";
  options.kv_cache_dtype = "float32";
  options.num_threads = 2;
  options.max_num_seqs = 32;
  options.max_num_batched_tokens = 64;
  options.num_kv_blocks = 256;
  return options;
}

class Fixture : public EngineDriver {
 public:
  explicit Fixture(const TinyModel& model, const EngineOptions& options = exact_options())
      : EngineDriver(model.config, options, model.checkpoint) {}
};

inline std::vector<int32_t> joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Logits of every position of the prompt and its answer.
inline Rows reference_logits(const TinyModel& model, const std::vector<int32_t>& tokens) {
  const ReferenceDecoder reference(model.config, model.reference);
  return reference.logits(reference.hidden(tokens));
}

// The token has the largest value, up to float32 rounding.
inline void expect_largest(const Row& row, int32_t token) {
  EXPECT_NEAR(row[static_cast<size_t>(token)], *std::max_element(row.begin(), row.end()), 1e-3);
}

// What tm_logits_process_args says, on the reference's logits of one position.
inline Row processed(Row logits, const SamplingParams& params, const std::vector<int32_t>& prompt,
                     const std::vector<int32_t>& generated) {
  const std::set<int32_t> seen = [&] {
    const std::vector<int32_t> all = joined(prompt, generated);
    return std::set<int32_t>(all.begin(), all.end());
  }();
  for (const int32_t token : seen) {
    double& logit = logits[static_cast<size_t>(token)];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    const auto count = std::count(generated.begin(), generated.end(), token);
    logit -= (count > 0) * params.presence_penalty + static_cast<double>(count) * params.frequency_penalty;
  }
  for (const auto& [token, bias] : params.logit_bias) logits[static_cast<size_t>(token)] += bias;
  constexpr double kForbidden = -std::numeric_limits<double>::infinity();
  for (const int32_t token : params.bad_token_ids) logits[static_cast<size_t>(token)] = kForbidden;
  for (const std::vector<int32_t>& bad : params.bad_token_sequences) {
    const std::vector<int32_t> begun(bad.begin(), bad.end() - 1);
    const auto tail =
        generated.size() < begun.size() ? generated.end() : generated.end() - static_cast<std::ptrdiff_t>(begun.size());
    if (std::vector<int32_t>(tail, generated.end()) == begun) logits[static_cast<size_t>(bad.back())] = kForbidden;
  }
  if (static_cast<int64_t>(generated.size()) < params.min_new_tokens) {
    for (const int32_t token : params.stop_token_ids) logits[static_cast<size_t>(token)] = kForbidden;
  }
  const auto& allowed = params.allowed_token_ids;
  for (size_t token = 0; token < logits.size() && !allowed.empty(); ++token) {
    if (std::find(allowed.begin(), allowed.end(), token) == allowed.end()) logits[token] = kForbidden;
  }
  return logits;
}

}  // namespace turbomind::test
