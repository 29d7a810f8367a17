// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "support/test.h"
#include "turbomind/layers/rope_table.h"

namespace turbomind {
namespace {

RopeConfig config_of(int32_t dim, double theta, double attention_factor) {
  RopeConfig config{.dim = dim, .attention_factor = attention_factor};
  for (int32_t i = 0; i < dim / 2; ++i) config.inv_freq.push_back(std::pow(theta, -2.0 * i / dim));
  return config;
}

// A float64 error below 1e-12 changes the rounding to float32 about once in 1e5 entries, and then by one unit.
void expect_exact(const RopeConfig& config, int64_t first, int64_t num_positions) {
  std::vector<float> table(static_cast<size_t>(num_positions * config.dim));
  compute_rope_table(config, first, table);
  const int64_t pairs = config.dim / 2;
  int64_t entries = 0;
  int64_t differing = 0;
  for (int64_t p = first; p < first + num_positions; ++p) {
    for (int64_t i = 0; i < pairs; ++i) {
      const long double angle = static_cast<long double>(p) * config.inv_freq[static_cast<size_t>(i)];
      const long double factor = config.attention_factor;
      const auto c = static_cast<float>(std::cos(angle) * factor);
      const auto s = static_cast<float>(std::sin(angle) * factor);
      const float* row = &table[static_cast<size_t>((p - first) * config.dim)];
      differing += (row[i] != c) + (row[pairs + i] != s);
      EXPECT_NEAR(row[i], c, 1.2e-7 * config.attention_factor);
      EXPECT_NEAR(row[pairs + i], s, 1.2e-7 * config.attention_factor);
      entries += 2;
    }
  }
  EXPECT(differing * 100000 <= entries + 100000);
}

TEST(rope_table_is_the_rounded_exact_value) {
  expect_exact(config_of(64, 10000, 1.0), 0, 4096);
  expect_exact(config_of(32, 1e6, 1.25), 0, 1000);
}

TEST(rope_table_stays_exact_far_out) { expect_exact(config_of(16, 10000, 1.0), 1000003, 4096); }

}  // namespace
}  // namespace turbomind
