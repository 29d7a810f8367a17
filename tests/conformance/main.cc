// SPDX-License-Identifier: Apache-2.0
//
// conformance --backend <plug-in.so> [--mode test|perf|support] [--op NAME] [--case PART] [--config key=value]...
//             [--expected-failures FILE] [--readme FILE] [--verbose]
//
// test: runs every case and ends with "N passed, N failed"; exit status 1 if any failed. perf: times the ops against
// the machine's limits. support: runs every case and writes the table of what the backend offers into --readme.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "expected_failures.h"
#include "perf.h"
#include "suite.h"
#include "support.h"
#include "turbomind/core/log.h"

namespace turbomind::conformance {
namespace {

struct Options {
  std::string backend;
  std::string mode = "test";
  std::string op;
  std::string part;
  std::string expected_failures;
  std::string readme;
  bool verbose = false;
  Config config;
};

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--verbose") {
      options.verbose = true;
      continue;
    }
    check(i + 1 < argc, ErrorCode::kInvalidArgument, flag, ": expected a value");
    const std::string value = argv[++i];
    if (flag == "--backend") {
      options.backend = value;
    } else if (flag == "--mode") {
      options.mode = value;
    } else if (flag == "--op") {
      options.op = value;
    } else if (flag == "--case") {
      options.part = value;
    } else if (flag == "--expected-failures") {
      options.expected_failures = value;
    } else if (flag == "--readme") {
      options.readme = value;
    } else if (flag == "--config") {
      options.config.set_pair(value);
    } else {
      fail(ErrorCode::kInvalidArgument, "unknown option ", flag);
    }
  }
  check(!options.backend.empty(), ErrorCode::kInvalidArgument, "--backend: expected the path of a plug-in");
  check(options.mode == "test" || options.mode == "perf" || options.mode == "support", ErrorCode::kInvalidArgument,
        "--mode: expected test, perf or support, found '", options.mode, "'");
  return options;
}

Suite make_suite(const Session& session) {
  Suite suite;
  add_device_checks(suite);
  add_elementwise_cases(suite, session);
  add_norm_cases(suite, session);
  add_embedding_cases(suite, session);
  add_linear_cases(suite, session);
  add_rope_cases(suite, session);
  add_attention_cases(suite, session);
  add_kv_cases(suite, session);
  add_row_cases(suite, session);
  add_moe_cases(suite, session);
  add_logits_cases(suite, session);
  add_sampling_cases(suite, session);
  add_fused_cases(suite, session);
  add_fused_attention_cases(suite, session);
  add_collective_checks(suite, session);
  return suite;
}

class Report {
 public:
  Report(ExpectedFailures expected, bool verbose) : expected_(std::move(expected)), verbose_(verbose) {}

  void add(const Entry& entry, const Result& result) {
    const std::string* reason = expected_.find(entry.name);
    switch (result.outcome) {
      case Outcome::kNotOffered:
        ++not_offered_;
        if (verbose_) std::printf("none %s: %s\n", entry.name.c_str(), result.message.c_str());
        return;
      case Outcome::kPassed:
        if (reason) return fail_line(entry.name, "passed, but is listed as an expected failure: " + *reason);
        ++passed_;
        if (verbose_) std::printf("ok   %s\n", entry.name.c_str());
        return;
      case Outcome::kFailed:
        if (!reason) return fail_line(entry.name, result.message);
        ++passed_;
        if (verbose_) std::printf("xfail %s: %s (%s)\n", entry.name.c_str(), result.message.c_str(), reason->c_str());
        return;
    }
  }

  // all: the whole suite ran, so every expected failure must have been met.
  int finish(bool all) {
    if (all) {
      for (const std::string& pattern : expected_.unused())
        fail_line(pattern, "expected to fail, but no case is named so");
    }
    if (not_offered_) std::printf("%d not offered by the backend\n", not_offered_);
    std::printf("%d passed, %d failed\n", passed_, failed_);
    return failed_ || passed_ == 0;
  }

 private:
  void fail_line(const std::string& name, const std::string& message) {
    ++failed_;
    std::printf("FAIL %s: %s\n", name.c_str(), message.c_str());
  }

  ExpectedFailures expected_;
  bool verbose_;
  int passed_ = 0;
  int failed_ = 0;
  int not_offered_ = 0;
};

int run(const Options& options) {
  Logger::instance().set_level(LogLevel::kWarning);
  const auto plugin = Plugin::load(options.backend);
  const ProbeResult probe = plugin->probe();
  check(probe.usable, ErrorCode::kUnsupported, plugin->name(), ": not usable here: ", probe.reason);
  const Device device(*plugin, 0, options.config);
  device.set_thread();
  Stream stream(device);
  const Session session{device, stream, options.config};
  std::printf("%s %s on %s (%s)\n", plugin->name().c_str(), plugin->version().c_str(), device.props().name,
              device.props().arch);
  if (options.mode == "perf") return run_perf(session, options.op);

  const Suite suite = make_suite(session);
  Report report(ExpectedFailures::read(options.expected_failures), options.verbose);
  std::vector<EntryResult> results;
  for (const Entry& entry : suite.entries()) {
    if (!options.op.empty() && entry.op != options.op) continue;
    if (!options.part.empty() && entry.name.find(options.part) == std::string::npos) continue;
    results.push_back({&entry, run_entry(entry, session)});
    report.add(entry, results.back().result);
  }
  if (options.mode == "support") {
    const std::string table = support_table(session, results);
    std::printf("%s", table.c_str());
    if (!options.readme.empty()) write_support_table(options.readme, plugin->name(), table);
  }
  return report.finish(options.op.empty() && options.part.empty());
}

}  // namespace
}  // namespace turbomind::conformance

int main(int argc, char** argv) {
  try {
    return turbomind::conformance::run(turbomind::conformance::parse_options(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "conformance: %s\n", error.what());
    return 2;
  }
}
