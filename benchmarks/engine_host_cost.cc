// SPDX-License-Identifier: Apache-2.0
//
// What a step of a batch that neither grows nor shrinks costs the engine's thread, on the null plug-in, whose device
// works while the engine waits for it. `cold`: each wait takes milliseconds in which another thread uses the same
// processor and its caches, as happens on a machine with a real device.
//
//   engine_host_cost [batch [steps [greedy|sampled|penalties [warm|cold]]]]
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <string>
#include <vector>

#include "engine/engine_fixture.h"

namespace turbomind::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kPromptTokens = 512;
constexpr int64_t kWarmUpSteps = 32;
constexpr const char* kColdStepMicroseconds = "8000";
constexpr size_t kCacheBytes = size_t{40} << 20;

struct Run {
  int64_t batch = 256;
  int64_t steps = 300;
  std::string kind = "greedy";
  bool cold = false;
};

SamplingParams params_of(const std::string& kind, int64_t new_tokens) {
  SamplingParams params = greedy(new_tokens);
  params.eos_token_ids = {kVocab - 1, kVocab - 2};
  params.min_new_tokens = 1;
  if (kind == "sampled") {
    params.temperature = 0.8F;
    params.top_p = 0.95F;
  } else if (kind == "penalties") {
    params.frequency_penalty = 0.1F;
  }
  return params;
}

// The engine's counters once so many tokens have been drawn, and when that was; outputs are taken as they come.
std::pair<EngineStats, Clock::time_point> stats_at(Engine& engine, int64_t tokens,
                                                   const std::vector<uint64_t>& others) {
  uint64_t sum = 0;
  while (true) {
    for (const Output& output : engine.poll(std::chrono::milliseconds(50))) {
      if (output.error_code) throw Error(*output.error_code, output.error_message);
    }
    sum += std::accumulate(others.begin(), others.end(), uint64_t{0});
    const EngineStats stats = engine.stats();
    if (stats.generated_tokens >= tokens && sum < UINT64_MAX) return {stats, Clock::now()};
  }
}

void report(const char* what, double seconds, int64_t batch) {
  std::printf("%-10s %8.1f us a step, %6.3f us a sequence\n", what, 1e6 * seconds,
              1e6 * seconds / static_cast<double>(batch));
}

// Of this thread and those it starts.
void share_one_processor() {
  cpu_set_t first;
  CPU_ZERO(&first);
  CPU_SET(0, &first);
  check(sched_setaffinity(0, sizeof first, &first) == 0, ErrorCode::kInternal, "sched_setaffinity failed");
}

// This thread runs only while the engine's waits.
void yield_to_engine() {
  const sched_param priority{};
  check(sched_setscheduler(0, SCHED_IDLE, &priority) == 0, ErrorCode::kInternal, "sched_setscheduler failed");
}

void measure(const Run& run) {
  if (run.cold) share_one_processor();
  const std::vector<uint64_t> others(run.cold ? kCacheBytes / sizeof(uint64_t) : 0, 1);
  DecoderConfig model = null_model();
  // Nothing ends before the last step that counts.
  const int64_t new_tokens = 4 * (kWarmUpSteps + run.steps);
  model.context_length = static_cast<int32_t>(kPromptTokens + new_tokens);
  EngineOptions options = null_options(
      {{"tokens", "counter"}, {"asynchronous", "1"}, {"sample_delay_us", run.cold ? kColdStepMicroseconds : "0"}});
  options.max_num_seqs = static_cast<int32_t>(run.batch);
  options.max_num_batched_tokens = static_cast<int32_t>(std::max<int64_t>(run.batch, 8192));
  options.num_kv_blocks = run.batch * (model.context_length / options.block_size + 1);
  options.max_queue_size = static_cast<int32_t>(run.batch);
  EngineDriver driver(model, options, null_checkpoint());
  if (run.cold) yield_to_engine();
  for (int64_t i = 0; i < run.batch; ++i) {
    driver.engine.submit(make_prompt(kPromptTokens, static_cast<uint32_t>(i)), params_of(run.kind, new_tokens));
  }
  const auto [before, begin] = stats_at(driver.engine, run.batch * kWarmUpSteps, others);
  const auto [after, end] = stats_at(driver.engine, before.generated_tokens + run.batch * run.steps, others);
  const auto steps = static_cast<double>(after.steps - before.steps);
  const double wall = std::chrono::duration<double>(end - begin).count() / steps;
  const double wait = (after.wait_seconds - before.wait_seconds) / steps;
  const double schedule = (after.schedule_seconds - before.schedule_seconds) / steps;
  const double issue = (after.execute_seconds - before.execute_seconds) / steps - wait;
  const double output = (after.output_seconds - before.output_seconds) / steps;
  std::printf("batch %lld, %s, %.0f steps\n", static_cast<long long>(run.batch), run.kind.c_str(), steps);
  report("schedule", schedule, run.batch);
  report("issue", issue, run.batch);
  report("output", output, run.batch);
  report("all", schedule + issue + output, run.batch);
  if (!run.cold) report("no wait", wall - wait, run.batch);
}

int64_t to_count(const char* what, const char* text) {
  const int64_t count = std::atoll(text);
  check(count > 0, ErrorCode::kInvalidArgument, what, ": expected a positive number, found ", text);
  return count;
}

std::string to_word(const char* what, const std::string& text, const std::vector<std::string>& words) {
  check(std::find(words.begin(), words.end(), text) != words.end(), ErrorCode::kInvalidArgument, what,
        ": expected one of its words, found ", text);
  return text;
}

Run parse(int argc, char** argv) {
  Run run;
  if (argc > 1) run.batch = to_count("batch", argv[1]);
  if (argc > 2) run.steps = to_count("steps", argv[2]);
  if (argc > 3) run.kind = to_word("parameters", argv[3], {"greedy", "sampled", "penalties"});
  run.cold = argc > 4 && to_word("caches", argv[4], {"warm", "cold"}) == "cold";
  return run;
}

}  // namespace
}  // namespace turbomind::test

int main(int argc, char** argv) {
  try {
    turbomind::test::measure(turbomind::test::parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "engine_host_cost: %s\n", error.what());
    return 1;
  }
  return 0;
}
