// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "case.h"

namespace turbomind::conformance {

// What the backend under test is and was asked for.
struct Session {
  const Device& device;
  Stream& stream;
  Config config;

  // A row's result must not depend on the others.
  bool deterministic() const { return device.props().always_deterministic || config.get_bool("deterministic", false); }
  std::vector<DType> activation_dtypes() const;
  std::vector<DType> kv_dtypes() const;
};

// kCheck entries test calls that are no op (memory, events, refusals): run() throws or returns what is wrong.
struct Entry {
  std::string op;                    // an op of the contract, or "device", "weights", "plans", "collectives"
  std::string variant;               // column of the support table: a dtype or a weight format
  std::string name;                  // "<op>/<variant>/<case>"
  std::function<void(Case&)> build;  // either a case
  std::function<std::string(const Session&)> check;  // or a check: empty, or what is wrong
};

class Suite {
 public:
  void add(const std::string& op, const std::string& variant, const std::string& what,
           std::function<void(Case&)> build) {
    entries_.push_back({op, variant, op + "/" + variant + "/" + what, std::move(build), {}});
  }
  void add_check(const std::string& op, const std::string& what, std::function<std::string(const Session&)> check) {
    entries_.push_back({op, "-", op + "/" + what, {}, std::move(check)});
  }
  void add_check(const std::string& op, const std::string& variant, const std::string& what,
                 std::function<std::string(const Session&)> check) {
    entries_.push_back({op, variant, op + "/" + variant + "/" + what, {}, std::move(check)});
  }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

// A result of a fused op and of its composition: both must match the reference (fused.expected), and each other. Empty,
// or what is wrong.
std::string verify_pair(const TestTensor& fused, const TestTensor& composed, const Tolerance& bound);

// The cases, by family.
void add_device_checks(Suite& suite);
void add_elementwise_cases(Suite& suite, const Session& session);
void add_norm_cases(Suite& suite, const Session& session);
void add_embedding_cases(Suite& suite, const Session& session);
void add_linear_cases(Suite& suite, const Session& session);
void add_rope_cases(Suite& suite, const Session& session);
void add_attention_cases(Suite& suite, const Session& session);
void add_kv_cases(Suite& suite, const Session& session);
void add_row_cases(Suite& suite, const Session& session);
void add_moe_cases(Suite& suite, const Session& session);
void add_logits_cases(Suite& suite, const Session& session);
void add_sampling_cases(Suite& suite, const Session& session);
void add_fused_cases(Suite& suite, const Session& session);
void add_fused_attention_cases(Suite& suite, const Session& session);
void add_collective_checks(Suite& suite, const Session& session);

enum class Outcome { kPassed, kFailed, kNotOffered };

struct Result {
  Outcome outcome;
  std::string message;
};

// Everything the contract promises about one entry.
Result run_entry(const Entry& entry, const Session& session);

}  // namespace turbomind::conformance
