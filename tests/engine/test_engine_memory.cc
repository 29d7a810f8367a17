// SPDX-License-Identifier: Apache-2.0
//
// Host memory runs out on the engine thread, at one allocation after another: every request still gets exactly one
// answer, and the engine serves the next.
#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>

#include "engine/engine_fixture.h"
#include "turbomind/core/log.h"
#include "turbomind/engine/queues.h"

namespace {

std::thread::id caller;  // the test's own thread, whose allocations succeed
// Allocations of other threads before the first that fails, and how many fail then.
std::atomic<int64_t> num_before_failure{0};
std::atomic<int64_t> num_failures{0};

bool fails() {
  if (num_failures.load(std::memory_order_relaxed) <= 0 || std::this_thread::get_id() == caller) return false;
  if (num_before_failure.fetch_sub(1) > 0) return false;
  return num_failures.fetch_sub(1) > 0;
}

void* allocate(size_t bytes) {
  void* const memory = fails() ? nullptr : std::malloc(bytes ? bytes : 1);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t bytes) { return allocate(bytes); }
void* operator new[](size_t bytes) { return allocate(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace turbomind::test {
namespace {

void fail_allocations(int64_t after, int64_t count) {
  caller = std::this_thread::get_id();
  num_before_failure = after;
  num_failures = count;
}

// Requests of several kinds, one of which is cancelled.
void run_requests(EngineFixture& fixture, uint32_t seed) {
  SamplingParams two = greedy(6);
  two.n = 2;
  two.logprobs = 1;
  SamplingParams penalised = greedy(6);
  penalised.frequency_penalty = 0.1F;
  penalised.timeout = 60.0;
  penalised.output_logits = OutputRows::kGeneration;
  const size_t finished = fixture.num_finished;
  fixture.engine.submit(make_prompt(40, seed), two);
  fixture.engine.submit(make_prompt(70, seed + 1), penalised);
  fixture.engine.submit(make_prompt(30, seed + 2), greedy(0));
  fixture.engine.cancel(fixture.engine.submit(make_prompt(20, seed), greedy(200)));
  fixture.wait_finished(finished + 5);
}

// False once there are fewer allocations than are to succeed.
bool answers_all(EngineFixture& fixture, int64_t after, int64_t count) {
  fail_allocations(after, count);
  run_requests(fixture, static_cast<uint32_t>(after));
  const bool failed = num_failures < count;
  num_failures = 0;
  const std::vector<int32_t> prompt = make_prompt(50, 7);
  EXPECT_TOKENS(fixture.generate(prompt, greedy(8)).token_ids, predict(prompt, 8));
  EXPECT_EQ(fixture.engine.stats().kv_blocks_used, 0);
  EXPECT_EQ(fixture.engine.stats().waiting, 0);
  return failed;
}

void sweep(int64_t count) {
  Logger::instance().set_sink([](LogLevel, std::string_view) {});
  EngineFixture fixture(null_options());
  int64_t after = 0;
  // Each of the first, where requests are received; then ever fewer of what repeats with every token.
  while (answers_all(fixture, after, count)) after += 1 + after / 512;
  EXPECT(after > 100);
  EXPECT(fixture.engine.stats().requests_failed > 0);
}

TEST(one_allocation_after_another_fails) { sweep(1); }

// Ending the requests fails, too, some times over.
TEST(allocations_fail_while_requests_end) { sweep(5); }

// Memory that the caller's thread lacks for some outputs takes nothing of the others away.
TEST(outputs_wait_for_a_caller_short_of_memory) {
  constexpr uint64_t kOutputs = 5;
  OutputQueue queue;
  std::vector<StepOutput> step;
  for (uint64_t id = 1; id <= kOutputs; ++id) {
    auto request = std::make_shared<Request>();
    request->id = id;
    step.emplace_back(Sequence(std::move(request), 0));
    step.back().add_token(static_cast<int32_t>(id), {});
  }
  queue.push(step);
  std::vector<uint64_t> taken;
  // Room for the list and the first two of its tokens.
  fail_allocations(3, 1);
  std::thread([&] {
    while (taken.size() < kOutputs) {
      for (const Output& output : queue.poll(std::chrono::milliseconds(0))) {
        EXPECT_EQ(output.token_ids.size(), 1U);
        num_failures = 0;  // `taken` grows
        taken.push_back(output.request_id);
      }
    }
  }).join();
  EXPECT(taken == std::vector<uint64_t>({1, 2, 3, 4, 5}));
}

}  // namespace
}  // namespace turbomind::test
