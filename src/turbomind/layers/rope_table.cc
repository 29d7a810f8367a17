// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/rope_table.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace turbomind {
namespace {

// Positions between two exact values; each rotation in between adds about 2e-16.
constexpr int64_t kAnchorStep = 32;

// Rows computed and uploaded at a time: a long context's table is tens of MiB, which need not exist twice.
constexpr int64_t kUploadRows = 1024;

// Unit vectors that turn by a fixed angle each, kept as two arrays so that the compiler vectorises the turn.
struct Rotation {
  explicit Rotation(size_t size) : cosine(size), sine(size) {}

  std::vector<double> cosine;
  std::vector<double> sine;
};

// position * inv_freq is rounded to a double; the part lost is given back to first order, so that the error does not
// grow with the position.
void set_exact(Rotation& rotation, const std::vector<double>& inv_freq, int64_t position) {
  const auto p = static_cast<double>(position);
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const double angle = p * inv_freq[i];
    const double lost = std::fma(p, inv_freq[i], -angle);
    const double c = std::cos(angle);
    const double s = std::sin(angle);
    rotation.cosine[i] = c - lost * s;
    rotation.sine[i] = s + lost * c;
  }
}

void turn(Rotation& rotation, const Rotation& step) {
  for (size_t i = 0; i < rotation.cosine.size(); ++i) {
    const double c = rotation.cosine[i];
    const double s = rotation.sine[i];
    rotation.cosine[i] = c * step.cosine[i] - s * step.sine[i];
    rotation.sine[i] = s * step.cosine[i] + c * step.sine[i];
  }
}

}  // namespace

void compute_rope_table(const RopeConfig& config, int64_t first_position, std::span<float> out) {
  const std::vector<double>& inv_freq = config.inv_freq;
  const auto scaled = [factor = config.attention_factor](double x) { return static_cast<float>(x * factor); };
  Rotation step(inv_freq.size());
  set_exact(step, inv_freq, 1);
  Rotation rotation(inv_freq.size());
  float* row = out.data();
  const auto num_positions = static_cast<int64_t>(out.size()) / config.dim;
  for (int64_t i = 0; i < num_positions; ++i) {
    if (i % kAnchorStep == 0) {
      set_exact(rotation, inv_freq, first_position + i);
    } else {
      turn(rotation, step);
    }
    row = std::transform(rotation.cosine.begin(), rotation.cosine.end(), row, scaled);
    row = std::transform(rotation.sine.begin(), rotation.sine.end(), row, scaled);
  }
}

RopeTable::RopeTable(WeightStore& store, const RopeConfig& config, int64_t num_positions)
    : num_positions_(num_positions),
      dim_(config.dim),
      style_(config.style),
      mrope_section_(config.mrope_section),
      mrope_interleaved_(config.mrope_interleaved) {
  const auto row_bytes = static_cast<size_t>(config.dim) * sizeof(float);
  buffer_ = store.reserve(static_cast<size_t>(num_positions) * row_bytes);
  std::vector<float> rows(static_cast<size_t>(std::min(num_positions, kUploadRows) * config.dim));
  for (int64_t first = 0; first < num_positions; first += kUploadRows) {
    const auto count = static_cast<size_t>(std::min(kUploadRows, num_positions - first));
    compute_rope_table(config, first, std::span(rows).first(count * static_cast<size_t>(config.dim)));
    store.upload(buffer_, static_cast<size_t>(first) * row_bytes, rows.data(), count * row_bytes);
  }
}

tm_rope_args RopeTable::args() const {
  return {.cos_sin = cos_sin(),
          .rotary_dim = dim_,
          .style = style_,
          .mrope_section = {mrope_section_[0], mrope_section_[1], mrope_section_[2]},
          .mrope_interleaved = mrope_interleaved_};
}

}  // namespace turbomind
