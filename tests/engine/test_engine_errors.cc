// SPDX-License-Identifier: Apache-2.0
//
// Faults of the device, cancellation, deadlines, full queues and shutdown.
#include <atomic>
#include <thread>

#include "engine/engine_fixture.h"

namespace turbomind::test {
namespace {

using std::chrono::milliseconds;

const std::vector<const char*> kStepCalls = {
    "embedding", "rms_norm", "linear",      "rope",           "kv_write",   "attention",   "add",
    "sample",    "logprobs", "gather_rows", "logits_process", "copy_async", "plan_update",
};

SamplingParams with_every_call(int64_t max_new_tokens) {
  SamplingParams params = greedy(max_new_tokens);
  params.logprobs = 1;
  params.frequency_penalty = 0.1F;
  return params;
}

// Answers of the engine after a fault, long enough to meet every cached block.
void expect_healthy(EngineFixture& fixture, const std::vector<int32_t>& prompt) {
  EXPECT_TOKENS(fixture.generate(prompt, greedy(30)).token_ids, predict(prompt, 30));
  EXPECT_EQ(fixture.engine.stats().kv_blocks_used, 0);
}

void expect_fault_ends_only_its_step(const char* call, int64_t nth, const char* asynchronous) {
  EngineFixture fixture(null_options({{"tokens", "context"}, {"asynchronous", asynchronous}, {"can_capture", "0"}}));
  const std::vector<int32_t> prompt = make_prompt(100, 1);
  fixture.null.fail(call, nth, TM_DEVICE_ERROR);
  const uint64_t id = fixture.engine.submit(prompt, with_every_call(20));
  fixture.wait_finished(1);
  const Output failed = fixture.result(id);
  EXPECT(failed.finish_reason == FinishReason::kError);
  EXPECT(failed.error_code == ErrorCode::kDevice);
  EXPECT(failed.error_message.find("injected fault") != std::string::npos);
  expect_healthy(fixture, prompt);
  EXPECT(fixture.engine.stats().failed_steps >= 1);
  EXPECT_EQ(fixture.engine.stats().requests_failed, 1);
}

TEST(fault_in_any_call_ends_only_its_step) {
  for (const char* call : kStepCalls) {
    for (const char* asynchronous : {"0", "1"}) {
      for (const int64_t nth : {1, 6}) expect_fault_ends_only_its_step(call, nth, asynchronous);
    }
  }
}

TEST(fault_in_a_block_copy_ends_only_its_step) {
  EngineFixture fixture(null_options());
  const std::vector<int32_t> prompt = make_prompt(100, 1);
  fixture.generate(prompt, greedy(5));
  fixture.null.fail("kv_copy_blocks", 1, TM_DEVICE_ERROR);
  EXPECT(fixture.generate(prompt, greedy(5)).finish_reason == FinishReason::kError);
  expect_healthy(fixture, prompt);
}

TEST(fault_in_a_replay_ends_only_its_step) {
  EngineFixture fixture(null_options({{"tokens", "context"}, {"can_capture", "1"}}));
  const std::vector<int32_t> prompt = make_prompt(100, 1);
  fixture.null.fail("graph_launch", 3, TM_DEVICE_ERROR);
  EXPECT(fixture.generate(prompt, greedy(20)).finish_reason == FinishReason::kError);
  expect_healthy(fixture, prompt);
}

TEST(steps_that_cannot_be_captured_run_eagerly) {
  EngineFixture fixture(null_options({{"tokens", "context"}, {"can_capture", "1"}}));
  fixture.null.fail("capture_begin", 1, TM_UNSUPPORTED);
  expect_healthy(fixture, make_prompt(100, 1));
  EXPECT_EQ(fixture.engine.stats().graph_replays, 0);
  EXPECT_EQ(fixture.null.count("capture_begin"), 1);
}

TEST(out_of_memory_is_told_apart) {
  EngineFixture fixture(null_options());
  fixture.null.fail("attention", 1, TM_OUT_OF_MEMORY);
  EXPECT(fixture.generate(make_prompt(10, 1), greedy(5)).error_code == ErrorCode::kOutOfMemory);
  expect_healthy(fixture, make_prompt(10, 1));
}

TEST(requests_outside_the_failed_step_go_on) {
  EngineOptions options = null_options();
  options.max_num_seqs = 1;
  EngineFixture fixture(options);
  fixture.null.fail("sample", 5, TM_DEVICE_ERROR);
  const std::vector<int32_t> prompt = make_prompt(20, 2);
  const uint64_t failing = fixture.engine.submit(prompt, greedy(20));
  const uint64_t waiting = fixture.engine.submit(prompt, greedy(20));
  fixture.wait_finished(2);
  EXPECT(fixture.result(failing).finish_reason == FinishReason::kError);
  EXPECT_EQ(fixture.result(failing).token_ids.size(), 4U);
  EXPECT_TOKENS(fixture.result(waiting).token_ids, predict(prompt, 20));
}

TEST(every_sequence_of_a_failed_request_ends) {
  for (const int64_t nth : {1, 2, 5}) {
    EngineFixture fixture(null_options());
    fixture.null.fail("sample", nth, TM_DEVICE_ERROR);
    SamplingParams params = greedy(10);
    params.n = 3;
    fixture.engine.submit(make_prompt(100, 3), params);
    fixture.wait_finished(3);
    EXPECT_EQ(fixture.engine.stats().requests_failed, 1);
    expect_healthy(fixture, make_prompt(100, 3));
  }
}

TEST(lost_device_ends_everything_with_its_error) {
  for (const char* asynchronous : {"0", "1"}) {
    EngineFixture fixture(null_options({{"tokens", "context"}, {"asynchronous", asynchronous}}));
    fixture.null.fail("attention", 3, TM_DEVICE_LOST);
    size_t accepted = 0;
    try {
      for (; accepted < 12; ++accepted) fixture.engine.submit(make_prompt(40, 1), greedy(20));
    } catch (const Error& error) {
      EXPECT(error.code() == ErrorCode::kDeviceLost);
    }
    fixture.wait_finished(accepted);
    for (const auto& [key, output] : fixture.results) EXPECT(output.error_code == ErrorCode::kDeviceLost);
    EXPECT_ERROR(fixture.engine.submit({1}, greedy(1)), ErrorCode::kDeviceLost, "injected fault");
    fixture.engine.stop();
  }
}

EngineOptions device_options(const char* asynchronous, const char* can_capture) {
  return null_options(
      {{"tokens", "context"}, {"host_accessible", "0"}, {"asynchronous", asynchronous}, {"can_capture", can_capture}});
}

TEST(lost_device_is_opened_again) {
  for (const char* asynchronous : {"0", "1"}) {
    for (const char* can_capture : {"0", "1"}) {
      EngineFixture fixture(device_options(asynchronous, can_capture));
      const std::vector<int32_t> prompt = make_prompt(100, 1);
      expect_healthy(fixture, prompt);
      const int64_t packed = fixture.null.count("weight_pack");
      fixture.null.fail("attention", 5, TM_DEVICE_LOST);
      const Output failed = fixture.generate(prompt, greedy(20));
      EXPECT(failed.error_code == ErrorCode::kDeviceLost);
      // The cache of the lost device is not taken for filled.
      EXPECT_EQ(fixture.generate(prompt, greedy(1)).cached_tokens, 0);
      expect_healthy(fixture, prompt);
      EXPECT_EQ(fixture.engine.stats().device_recoveries, 1);
      EXPECT_EQ(fixture.null.count("weight_pack"), 2 * packed);
      EXPECT_EQ(fixture.null.count("context_create"), 2);
    }
  }
}

TEST(requests_that_wait_outlive_a_lost_device) {
  EngineOptions options = device_options("1", "1");
  options.max_num_seqs = 1;
  options.backend_config["sample_delay_us"] = "500";
  EngineFixture fixture(options);
  fixture.null.fail("sample", 3, TM_DEVICE_LOST);
  fixture.engine.submit(make_prompt(40, 1), greedy(20));
  while (fixture.engine.stats().device_recoveries == 0) fixture.collect(milliseconds(1));
  const Output later = fixture.generate(make_prompt(40, 2), greedy(20));
  EXPECT_TOKENS(later.token_ids, predict(make_prompt(40, 2), 20));
}

TEST(device_that_stays_lost_closes_the_queue) {
  EngineFixture fixture(device_options("1", "1"));
  for (int64_t nth = 1; nth <= 3; ++nth) fixture.null.fail("context_create", nth, TM_DEVICE_LOST);
  fixture.null.fail("attention", 3, TM_DEVICE_LOST);
  EXPECT(fixture.generate(make_prompt(40, 1), greedy(20)).error_code == ErrorCode::kDeviceLost);
  fixture.engine.poll(milliseconds(10000));  // returns when the engine thread has ended
  EXPECT_EQ(fixture.null.count("context_create"), 4);
  EXPECT_ERROR(fixture.engine.submit({1}, greedy(1)), ErrorCode::kDeviceLost, "in a new process");
  EXPECT_EQ(fixture.engine.stats().device_recoveries, 0);
}

TEST(device_that_is_lost_in_every_step_closes_the_queue) {
  EngineFixture fixture(device_options("0", "0"));
  for (int64_t nth = 1; nth <= 4; ++nth) fixture.null.fail("sample", nth, TM_DEVICE_LOST);
  for (int i = 0; i < 4; ++i) {
    EXPECT(fixture.generate(make_prompt(40, 1), greedy(20)).error_code == ErrorCode::kDeviceLost);
  }
  fixture.engine.poll(milliseconds(10000));
  EXPECT_EQ(fixture.engine.stats().device_recoveries, 3);
  EXPECT_ERROR(fixture.engine.submit({1}, greedy(1)), ErrorCode::kDeviceLost, "injected fault");
}

TEST(memory_that_is_missing_at_start_is_reported) {
  const NullBackend null(TM_PLUGIN_NULL);
  EngineOptions options = null_options({{"memory_bytes", "1048576"}});
  options.num_kv_blocks = 1 << 20;
  Engine engine(null_model(), options);
  for (const WeightSource& source : null_checkpoint()) engine.load_weight(source);
  EXPECT_ERROR(engine.start(), ErrorCode::kOutOfMemory, "KV cache: num_kv_blocks: expected at most the ");
  EXPECT_ERROR(engine.start(), ErrorCode::kOutOfMemory,
               "found 64.0 MiB (67108864 bytes) for 1048576 blocks of 16 tokens; num_kv_blocks, cache_max_entry_count");
}

TEST(memory_that_is_gone_when_it_is_taken_is_reported) {
  int64_t allocations = 0;
  for (const bool fails : {false, true}) {
    const NullBackend null(TM_PLUGIN_NULL);
    Engine engine(null_model(), null_options());
    for (const WeightSource& source : null_checkpoint()) engine.load_weight(source);
    const int64_t before = null.count("alloc");
    if (fails) {
      null.fail("alloc", allocations, TM_OUT_OF_MEMORY);
      EXPECT_ERROR(engine.start(), ErrorCode::kOutOfMemory, "KV cache: expected 0.0 MiB (256 blocks of 16 tokens");
    } else {
      engine.start();
      allocations = null.count("alloc") - before;
    }
  }
}

TEST(queue_is_bounded) {
  EngineOptions options = null_options({{"tokens", "context"}, {"sample_delay_us", "2000"}});
  options.max_num_seqs = 1;
  options.max_queue_size = 2;
  EngineFixture fixture(options);
  int refused = 0;
  for (int i = 0; i < 10; ++i) {
    try {
      fixture.engine.submit(make_prompt(5, 1), greedy(20));
    } catch (const Error& error) {
      EXPECT(error.code() == ErrorCode::kQueueFull);
      ++refused;
    }
  }
  EXPECT(refused > 0);
  fixture.wait_finished(static_cast<size_t>(10 - refused));
  expect_healthy(fixture, make_prompt(5, 1));
}

TEST(cancelled_in_any_state) {
  EngineOptions options = null_options({{"tokens", "context"}, {"sample_delay_us", "500"}});
  options.max_num_seqs = 2;
  EngineFixture fixture(options);
  std::vector<uint64_t> ids;
  for (uint32_t i = 0; i < 6; ++i) ids.push_back(fixture.engine.submit(make_prompt(300, i), greedy(200)));
  fixture.engine.cancel(ids[5]);  // waiting
  fixture.engine.cancel(ids[0]);  // waiting or in its prompt
  while (fixture.result(ids[1]).token_ids.empty()) fixture.collect();
  fixture.engine.cancel(ids[1]);  // decoding
  for (const uint64_t id : ids) fixture.engine.cancel(id);
  fixture.engine.cancel(ids[2]);
  fixture.engine.cancel(123456);
  fixture.wait_finished(6);
  for (const uint64_t id : ids) EXPECT(fixture.result(id).finish_reason == FinishReason::kCancelled);
  expect_healthy(fixture, make_prompt(300, 1));
  EXPECT_EQ(fixture.engine.stats().requests_cancelled, 6);
}

TEST(cancelling_a_request_ends_all_its_sequences) {
  EngineFixture fixture(null_options({{"tokens", "context"}, {"sample_delay_us", "500"}}));
  SamplingParams params = greedy(400);
  params.n = 4;
  fixture.engine.cancel(fixture.engine.submit(make_prompt(100, 1), params));
  const uint64_t id = fixture.engine.submit(make_prompt(100, 1), params);
  while (fixture.result(id, 3).token_ids.empty()) fixture.collect();
  fixture.engine.cancel(id);
  fixture.wait_finished(8);
  EXPECT_EQ(fixture.engine.stats().requests_cancelled, 2);
  expect_healthy(fixture, make_prompt(100, 1));
}

TEST(deadline_ends_a_request_with_a_typed_error) {
  EngineOptions options = null_options({{"tokens", "context"}, {"sample_delay_us", "2000"}});
  options.max_num_seqs = 1;
  EngineFixture fixture(options);
  SamplingParams params = greedy(400);
  params.timeout = 0.02;
  const uint64_t running = fixture.engine.submit(make_prompt(10, 1), params);
  const uint64_t waiting = fixture.engine.submit(make_prompt(10, 2), params);
  fixture.wait_finished(2);
  for (const uint64_t id : {running, waiting}) {
    EXPECT(fixture.result(id).error_code == ErrorCode::kDeadlineExceeded);
    EXPECT(fixture.result(id).error_message.find("timeout: expected the request to end within 0.02 s") == 0);
  }
  EXPECT(!fixture.result(running).token_ids.empty());
  params.timeout = 60.0;
  params.max_new_tokens = 3;
  EXPECT(fixture.generate(make_prompt(10, 1), params).finish_reason == FinishReason::kLength);
}

TEST(stop_cancels_what_is_unfinished) {
  for (const char* asynchronous : {"0", "1"}) {
    EngineFixture fixture(
        null_options({{"tokens", "context"}, {"asynchronous", asynchronous}, {"sample_delay_us", "500"}}));
    for (uint32_t i = 0; i < 20; ++i) fixture.engine.submit(make_prompt(30, i), greedy(200));
    fixture.engine.stop();
    fixture.wait_finished(20);
    for (const auto& [key, output] : fixture.results) EXPECT(output.finish_reason == FinishReason::kCancelled);
    EXPECT_ERROR(fixture.engine.submit({1}, greedy(1)), ErrorCode::kCancelled, "stopped");
    EXPECT(fixture.engine.poll(milliseconds(10000)).empty());
    fixture.engine.stop();
  }
}

TEST(drain_serves_what_is_unfinished) {
  EngineFixture fixture(null_options());
  std::map<uint64_t, std::vector<int32_t>> expected;
  for (uint32_t i = 0; i < 20; ++i) {
    expected[fixture.engine.submit(make_prompt(30, i), greedy(50))] = predict(make_prompt(30, i), 50);
  }
  fixture.engine.stop(Engine::StopMode::kDrain);
  fixture.wait_finished(20);
  for (const auto& [id, tokens] : expected) EXPECT_TOKENS(fixture.result(id).token_ids, tokens);
}

TEST(drain_can_be_cut_short) {
  EngineFixture fixture(null_options({{"tokens", "context"}, {"sample_delay_us", "5000"}}));
  for (uint32_t i = 0; i < 20; ++i) fixture.engine.submit(make_prompt(30, i), greedy(400));
  std::thread drainer([&] { fixture.engine.stop(Engine::StopMode::kDrain); });
  fixture.engine.stop(Engine::StopMode::kCancel);
  drainer.join();
  fixture.wait_finished(20);
}

TEST(engine_that_never_started_stops) {
  const NullBackend null(TM_PLUGIN_NULL);
  Engine engine(null_model(), null_options());
  engine.stop();
  EXPECT(engine.poll(milliseconds(10000)).empty());
}

}  // namespace
}  // namespace turbomind::test
