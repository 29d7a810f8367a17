// SPDX-License-Identifier: Apache-2.0
//
// What the engine does when a captured step fails on a plug-in that computes.
#pragma once

#include <dlfcn.h>

#include "engine/engine_numbers.h"

namespace turbomind::test {

// The hooks of tests/support/failing.
class FailingPlugin {
 public:
  FailingPlugin() : library_(dlopen(TM_FAILING_PLUGIN, RTLD_NOW)) {}

  void fail_replay(int64_t nth) const { hook<void (*)(int64_t)>("tm_failing_arm")(nth); }
  int64_t captures() const { return hook<int64_t (*)()>("tm_failing_captures")(); }

 private:
  template <class Fn>
  Fn hook(const char* name) const {
    void* symbol = library_ ? dlsym(library_, name) : nullptr;
    check(symbol != nullptr, ErrorCode::kInternal, TM_FAILING_PLUGIN, ": hook ", name, " is missing");
    return reinterpret_cast<Fn>(symbol);
  }

  void* library_;
};

// The replay's requests end with the error; steps are captured anew, since a recording may hold what the failure has
// ended; whoever comes then is answered as ever.
inline void expect_recovery_from_a_failed_replay(int32_t ranks) {
  const TinyModel model = tiny_llama();
  const FailingPlugin plugin;
  EngineOptions options = exact_options();
  options.backend = "failing";
  options.plugin_paths = {TM_FAILING_PLUGIN};
  options.tp = ranks;
  Fixture fixture(model, options);
  const auto prompt_of = [&](uint32_t i) { return random_tokens(model.config, 20 + i, i); };
  constexpr uint32_t kRequests = 4;
  const auto answers = [&] {
    std::vector<uint64_t> ids;
    for (uint32_t i = 0; i < kRequests; ++i) ids.push_back(fixture.engine.submit(prompt_of(i), greedy(30)));
    fixture.wait_finished(fixture.num_finished + kRequests);
    return ids;
  };
  answers();  // captured at the second run of a size
  const std::vector<uint64_t> before = answers();
  EXPECT(fixture.engine.stats().graph_replays > 0);
  plugin.fail_replay(10);
  for (const uint64_t id : answers()) {
    const Output& failed = fixture.result(id);
    EXPECT(failed.error_code == ErrorCode::kDevice);
  }
  EXPECT_EQ(fixture.engine.stats().failed_steps, 1);
  const int64_t replays = fixture.engine.stats().graph_replays;
  const int64_t captures = plugin.captures();
  const std::vector<uint64_t> after = answers();
  for (size_t i = 0; i < kRequests; ++i) {
    EXPECT_TOKENS(fixture.result(after[i]).token_ids, fixture.result(before[i]).token_ids);
  }
  EXPECT(plugin.captures() > captures);
  EXPECT(fixture.engine.stats().graph_replays > replays);
  EXPECT_EQ(fixture.engine.stats().failed_steps, 1);
}

}  // namespace turbomind::test
