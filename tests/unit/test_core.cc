// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "support/test.h"
#include "turbomind/core/config.h"
#include "turbomind/core/error.h"
#include "turbomind/core/log.h"
#include "turbomind/core/tensor.h"
#include "turbomind/core/worker_pool.h"

namespace turbomind {
namespace {

TEST(error_carries_code_and_streamed_message) {
  EXPECT_ERROR(fail(ErrorCode::kQueueFull, "queue: expected at most ", 8, ", found ", 9), ErrorCode::kQueueFull,
               "queue: expected at most 8, found 9");
  check(true, ErrorCode::kInternal, "never built");
}

TEST(dtype_names_and_sizes_round_trip) {
  for (int i = TM_F32; i <= TM_F8_E5M2; ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_size(TM_BF16), 2u);
  EXPECT_EQ(dtype_size(TM_I64), 8u);
  EXPECT_EQ(parse_dtype("bfloat16"), TM_BF16);
  EXPECT_ERROR(parse_dtype("bf17"), ErrorCode::kInvalidArgument, "'bf17'");
  EXPECT_ERROR(dtype_size(static_cast<DType>(15)), ErrorCode::kInvalidArgument, "found value 15");
}

TEST(weight_rows_are_whole_blocks) {
  EXPECT_EQ(weight_row_bytes(TM_WEIGHT_GGUF_Q4_1, 64), 40);
  EXPECT_EQ(weight_row_bytes(TM_WEIGHT_GGUF_Q6_K, 512), 420);
  EXPECT_EQ(weight_row_bytes(TM_WEIGHT_INT4_GROUP, 128), 64);
  EXPECT_EQ(parse_weight_format("gguf_q5_k"), TM_WEIGHT_GGUF_Q5_K);
  EXPECT_ERROR(weight_row_bytes(TM_WEIGHT_GGUF_Q4_K, 300), ErrorCode::kInvalidArgument, "multiple of 256 columns");
}

TEST(tensor_slices_keep_strides) {
  std::vector<float> data(24);
  const Tensor matrix = make_tensor(data.data(), TM_F32, {4, 6});
  EXPECT_EQ(nbytes(matrix), 96u);
  const Tensor columns = column_slice(matrix, 2, 3);
  EXPECT_EQ(columns.data, static_cast<void*>(&data[2]));
  EXPECT_EQ(columns.stride[0], 6);
  EXPECT(!is_contiguous(columns));
  EXPECT_EQ(to_string(columns), "f32 [4, 3] stride [6, 1]");
  const Tensor rows = row_slice(columns, 1, 2);
  EXPECT_EQ(rows.data, static_cast<void*>(&data[8]));
  EXPECT_ERROR(row_slice(matrix, 3, 2), ErrorCode::kInvalidArgument, "inside [0, 4), found [3, 5)");
  EXPECT_ERROR(column_slice(matrix, -1, 2), ErrorCode::kInvalidArgument, "column_slice");
}

TEST(reshape_splits_strided_rows_into_heads) {
  std::vector<float> data(48);
  const Tensor fused = make_tensor(data.data(), TM_F32, {4, 12});
  const Tensor heads = reshape(column_slice(fused, 0, 8), {4, 2, 4});
  EXPECT_EQ(heads.stride[0], 12);
  EXPECT_EQ(heads.stride[1], 4);
  EXPECT_EQ(heads.stride[2], 1);
  EXPECT_ERROR(reshape(column_slice(fused, 0, 8), {8, 4}), ErrorCode::kInvalidArgument, "the same strided rows");
  EXPECT_ERROR(reshape(fused, {5, 5}), ErrorCode::kInvalidArgument, "expected 48 elements");
  EXPECT_ERROR(make_tensor(data.data(), TM_F32, {1, 1, 1, 1, 1}), ErrorCode::kInvalidArgument, "dimensions");
}

TEST(config_parses_and_refuses) {
  Config config;
  config.set_pair("num_threads=4");
  config.set_pair("deterministic=true");
  EXPECT_EQ(config.get_int("num_threads", 0), 4);
  EXPECT(config.get_bool("deterministic", false));
  EXPECT_EQ(config.get_int("absent", 7), 7);
  EXPECT_EQ(config.abi_entries().size(), 2u);
  EXPECT_ERROR(config.set_pair("novalue"), ErrorCode::kInvalidArgument, "key=value");
  config.set("num_threads", "4x");
  EXPECT_ERROR(config.get_int("num_threads", 0), ErrorCode::kInvalidArgument, "'4x'");
}

TEST(logger_filters_by_level_and_uses_the_sink) {
  std::vector<std::string> lines;
  Logger& logger = Logger::instance();
  logger.set_sink([&](LogLevel level, std::string_view text) {
    lines.push_back(std::string(to_string(level)) + ": " + std::string(text));
  });
  log(LogLevel::kWarning, "kept ", 1);
  log(LogLevel::kDebug, "dropped");
  logger.set_sink({});
  EXPECT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines.at(0), "warning: kept 1");
}

TEST(workers_run_every_task_once) {
  for (const size_t num_threads : {0, 1, 2, 5}) {
    WorkerPool pool(num_threads);
    for (size_t job = 0; job < 300; ++job) {
      const size_t count = job % 37;
      std::vector<std::atomic<int>> runs(count);
      pool.for_each(count, [&](size_t i) { runs[i].fetch_add(1); });
      for (const std::atomic<int>& run : runs) EXPECT_EQ(run.load(), 1);
    }
  }
}

TEST(workers_work_side_by_side) {
  WorkerPool pool(3);
  // Each task waits for the others: they end only if as many threads run them.
  std::atomic<int> arrived{0};
  pool.for_each(3, [&](size_t) {
    arrived.fetch_add(1);
    while (arrived.load() < 3) std::this_thread::yield();
  });
  EXPECT_EQ(arrived.load(), 3);
}

TEST(workers_begin_what_was_started_while_the_caller_does_other_things) {
  WorkerPool pool(2);
  std::atomic<int> runs{0};
  pool.start(1, [&](size_t) { runs.fetch_add(1); });
  while (runs.load() < 1) std::this_thread::yield();  // for good, if it waited for the caller
  pool.finish();
  EXPECT_EQ(runs.load(), 1);
}

TEST(the_caller_does_what_workers_have_not_begun) {
  for (const size_t num_threads : {1, 2, 5}) {
    WorkerPool pool(num_threads);
    for (size_t job = 0; job < 300; ++job) {
      std::vector<std::atomic<int>> runs(job % 37);
      pool.start(runs.size(), [&](size_t i) { runs[i].fetch_add(1); });
      pool.finish();
      for (const std::atomic<int>& run : runs) EXPECT_EQ(run.load(), 1);
    }
    pool.start(3, [](size_t) { fail(ErrorCode::kInternal, "a task"); });
    EXPECT_ERROR(pool.finish(), ErrorCode::kInternal, "a task");
  }
}

TEST(workers_hand_on_what_a_task_throws) {
  WorkerPool pool(3);
  for (int job = 0; job < 50; ++job) {
    std::atomic<int> runs{0};
    const auto task = [&](size_t i) {
      runs.fetch_add(1);
      if (i == 2) fail(ErrorCode::kInternal, "task 2");
    };
    EXPECT_ERROR(pool.for_each(100, task), ErrorCode::kInternal, "task 2");
    EXPECT(runs.load() >= 3);
  }
  pool.for_each(2, [](size_t) {});
}

}  // namespace
}  // namespace turbomind
