// SPDX-License-Identifier: Apache-2.0
//
// What the CPU plug-in's linear promises beyond the contract: the same bits for every batch, thread count and way of
// cutting tiles, on every instruction set this processor has; exact outliers; NaN that reaches the output.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "reference/ops.h"
#include "reference/weights.h"
#include "support/test.h"
#include "turbomind/ops/ops.h"
#include "turbomind/runtime/registry.h"

namespace turbomind {
namespace {

using reference::RawWeight;
using reference::Values;

constexpr int64_t kRows = 72;   // four panels and a half
constexpr int64_t kCols = 512;  // two blocks of the K-quants

const Plugin& cpu() { return PluginRegistry::instance().load(TM_PLUGIN_CPU); }

std::vector<std::string> instruction_sets() {
  std::vector<std::string> found;
  for (const char* isa : {"portable", "avx2", "avx512", "avx512bf16", "amx"}) {
    try {
      Device(cpu(), 0, {{"isa", isa}});
      found.push_back(isa);
    } catch (const Error& error) {
      EXPECT(error.code() == ErrorCode::kInvalidArgument);
    }
  }
  return found;
}

struct Session {
  Session(const std::string& isa, const std::string& num_threads)
      : device(cpu(), 0, {{"isa", isa}, {"num_threads", num_threads}}),
        stream(device),
        workspace(device, stream),
        ops(device, stream, workspace) {
    device.set_thread();
  }

  PackedWeight pack(const RawWeight& raw, tm_compute compute = TM_COMPUTE_DEFAULT) {
    const tm_weight_part part{.data = raw.codes.data(),
                              .scales = raw.scales.empty() ? nullptr : raw.scales.data(),
                              .zeros = raw.zeros.empty() ? nullptr : raw.zeros.data(),
                              .rows = raw.rows,
                              .row_stride_bytes = raw.row_bytes,
                              .scale_stride_bytes = raw.scale_row_bytes,
                              .zero_stride_bytes = raw.zero_row_bytes};
    return PackedWeight(device, stream,
                        {.format = raw.format,
                         .compute = compute,
                         .scale_dtype = raw.scale_dtype,
                         .group_size = raw.group_size,
                         .rows = raw.rows,
                         .cols = raw.cols,
                         .parts = &part,
                         .num_parts = 1},
                        nullptr);
  }

  // x: [rows, kCols] -> [rows, kRows]
  std::vector<float> linear(const PackedWeight& weight, const float* x, int64_t rows) {
    std::vector<float> out(static_cast<size_t>(rows * kRows));
    tm_linear_args args{.x = make_tensor(const_cast<float*>(x), TM_F32, {rows, kCols}), .num_weights = 1};
    args.weight[0] = weight.handle();
    args.out[0] = make_tensor(out.data(), TM_F32, {rows, kRows});
    ops.linear(args);
    stream.synchronize();
    return out;
  }

  Device device;
  Stream stream;
  Workspace workspace;
  Ops ops;
};

RawWeight random_weight(tm_weight_format format) {
  std::mt19937_64 random(format);
  return reference::make_weight(format, kRows, kCols, random);
}

// Normally distributed, one element in 50 twenty times as large.
std::vector<float> random_rows(int64_t rows) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(rows * kCols));
  for (size_t i = 0; i < x.size(); ++i) x[i] = normal(random) * (random() % 50 == 0 ? 20.0f : 1.0f);
  return x;
}

constexpr tm_weight_format kFormats[] = {
    TM_WEIGHT_F32,       TM_WEIGHT_F16,       TM_WEIGHT_BF16,      TM_WEIGHT_GGUF_Q4_0, TM_WEIGHT_GGUF_Q4_1,
    TM_WEIGHT_GGUF_Q5_1, TM_WEIGHT_GGUF_Q8_0, TM_WEIGHT_GGUF_Q4_K, TM_WEIGHT_GGUF_Q6_K, TM_WEIGHT_INT4_GROUP};

bool same_bits(const float* a, const float* b, int64_t count) {
  return std::memcmp(a, b, static_cast<size_t>(count) * sizeof(float)) == 0;
}

TEST(cpu_linear_is_the_same_for_every_batch_and_thread_count) {
  constexpr int64_t kBatch = 131;  // enough for every way of cutting tasks
  const std::vector<float> x = random_rows(kBatch);
  for (const std::string& isa : instruction_sets()) {
    Session one(isa, "1");
    Session three(isa, "3");
    for (const tm_weight_format format : kFormats) {
      const RawWeight raw = random_weight(format);
      for (const tm_compute compute : {TM_COMPUTE_DEFAULT, TM_COMPUTE_FLOAT32}) {
        const PackedWeight weight = one.pack(raw, compute);
        const std::vector<float> whole = one.linear(weight, x.data(), kBatch);
        EXPECT(
            same_bits(three.linear(three.pack(raw, compute), x.data(), kBatch).data(), whole.data(), kBatch * kRows));
        for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 70, 126}) {
          const std::vector<float> part = one.linear(weight, x.data() + 5 * kCols, rows);
          EXPECT(same_bits(part.data(), whole.data() + 5 * kRows, rows * kRows));
        }
      }
    }
  }
}

// Elements far beyond the rest of the row are multiplied in float32. In a row of one such element nothing is rounded.
TEST(cpu_linear_keeps_outliers_exact) {
  std::vector<float> x(kCols);
  const int64_t k = 301;
  for (const std::string& isa : instruction_sets()) {
    Session session(isa, "1");
    for (const tm_weight_format format : kFormats) {
      const RawWeight raw = random_weight(format);
      // The matrix unit rounds activations to bfloat16 where the weight is; 0.703125 is one.
      x[k] = format == TM_WEIGHT_BF16 ? 0.703125f : 0.7f;
      const std::vector<float> out = session.linear(session.pack(raw), x.data(), 1);
      for (int64_t row = 0; row < kRows; ++row) {
        const double expected = x[k] * reference::weight_value(raw, row, k);
        EXPECT_NEAR(out[row], expected, 1e-6 * std::abs(expected));
      }
    }
  }
}

TEST(cpu_linear_with_outliers_is_near_the_reference) {
  const std::vector<float> x = random_rows(4);
  for (const std::string& isa : instruction_sets()) {
    Session session(isa, "2");
    for (const tm_weight_format format : kFormats) {
      const RawWeight raw = random_weight(format);
      Values matrix;
      for (int64_t i = 0; i < kRows * kCols; ++i) matrix.push_back(reference::weight_value(raw, i / kCols, i % kCols));
      const Values expected = reference::linear(Values(x.begin(), x.end()), matrix, {}, kCols, TM_ACTIVATION_NONE);
      const std::vector<float> out = session.linear(session.pack(raw), x.data(), 4);
      double error = 0, norm = 0;
      for (size_t i = 0; i < out.size(); ++i) {
        error += (out[i] - expected[i]) * (out[i] - expected[i]);
        norm += expected[i] * expected[i];
      }
      EXPECT(std::sqrt(error / norm) < 5e-3);  // int8 codes alone are beyond that
    }
  }
}

// The largest products there are, all of one sign: a sum of them that has too few bits wraps or saturates.
TEST(cpu_linear_has_room_for_the_largest_sums) {
  struct CodeBytes {
    tm_weight_format format;
    size_t block;  // bytes
    size_t first;  // code byte of a block
    size_t count;
    uint8_t value;
  };
  constexpr CodeBytes kLargest[] = {
      {TM_WEIGHT_GGUF_Q4_0, 18, 2, 16, 0xff},    {TM_WEIGHT_GGUF_Q4_1, 20, 4, 16, 0xff},
      {TM_WEIGHT_GGUF_Q5_0, 22, 2, 20, 0xff},    {TM_WEIGHT_GGUF_Q5_1, 24, 4, 20, 0xff},
      {TM_WEIGHT_GGUF_Q8_0, 34, 2, 32, 0x80},    {TM_WEIGHT_GGUF_Q4_K, 144, 16, 128, 0xff},
      {TM_WEIGHT_GGUF_Q5_K, 176, 16, 160, 0xff}, {TM_WEIGHT_GGUF_Q6_K, 210, 0, 192, 0xff},
  };
  for (const std::string& isa : instruction_sets()) {
    Session session(isa, "1");
    for (const CodeBytes& largest : kLargest) {
      RawWeight raw = random_weight(largest.format);
      for (size_t i = 0; i < raw.codes.size(); ++i) {
        const size_t place = i % largest.block;
        if (place >= largest.first && place < largest.first + largest.count) raw.codes[i] = largest.value;
      }
      const PackedWeight weight = session.pack(raw);
      for (const float activation : {1.0f, -1.0f}) {  // rounded to 127 steps of a 127th
        const std::vector<float> out = session.linear(weight, std::vector<float>(kCols, activation).data(), 1);
        for (int64_t row = 0; row < kRows; ++row) {
          double sum = 0, size = 0;
          for (int64_t k = 0; k < kCols; ++k) {
            sum += activation * reference::weight_value(raw, row, k);
            size += std::abs(reference::weight_value(raw, row, k));
          }
          EXPECT_NEAR(out[static_cast<size_t>(row)], sum, 1e-5 * size);
        }
      }
    }
  }
}

TEST(cpu_linear_passes_nan_on_in_its_row_only) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> x = random_rows(3);
    x[kCols + 100] = bad;
    for (const std::string& isa : instruction_sets()) {
      Session session(isa, "1");
      const RawWeight raw = random_weight(TM_WEIGHT_GGUF_Q4_1);
      const std::vector<float> out = session.linear(session.pack(raw), x.data(), 3);
      for (int64_t i = 0; i < 3 * kRows; ++i) EXPECT_EQ(std::isfinite(out[i]), i / kRows != 1);
    }
  }
}

TEST(cpu_config_errors_name_the_key) {
  EXPECT_ERROR(Device(cpu(), 0, {{"speed", "11"}}), ErrorCode::kInvalidArgument, "'speed'");
  EXPECT_ERROR(Device(cpu(), 0, {{"num_threads", "two"}}), ErrorCode::kInvalidArgument, "'num_threads'");
  EXPECT_ERROR(Device(cpu(), 0, {{"num_threads", "-1"}}), ErrorCode::kInvalidArgument, "'num_threads'");
  EXPECT_ERROR(Device(cpu(), 0, {{"isa", "sse9"}}), ErrorCode::kInvalidArgument, "'isa'");
  EXPECT_ERROR(Device(cpu(), 0, {{"cpus", "0-"}}), ErrorCode::kInvalidArgument, "'cpus'");
}

}  // namespace
}  // namespace turbomind
