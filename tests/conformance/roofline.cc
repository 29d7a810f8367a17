// SPDX-License-Identifier: Apache-2.0
#include "roofline.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

namespace turbomind::conformance {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double shortest_of(int times, const std::function<void()>& fn) {
  double shortest = 1e30;
  for (int i = 0; i < times; ++i) {
    const Clock::time_point start = Clock::now();
    fn();
    shortest = std::min(shortest, seconds_since(start));
  }
  return shortest;
}

void on_threads(int count, const std::function<void(int)>& fn) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(fn, i);
  for (std::thread& thread : threads) thread.join();
}

// The thread sanitizer is not up yet when the loader picks a clone.
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define TM_WIDEST_ISA __attribute__((target_clones("avx512f", "avx2,fma", "default")))
#else
#define TM_WIDEST_ISA
#endif

// Vectors of the compiler, wide enough for every ISA and enough of them to hide the latency of an addition.
using Vector = float __attribute__((vector_size(64)));
constexpr int kAccumulators = 12;

TM_WIDEST_ISA float sum_of(const Vector* data, size_t count) {
  Vector sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += data[i + static_cast<size_t>(j)];
  }
  float total = 0;
  for (const Vector& sum : sums) total += sum[0];
  return total;
}

TM_WIDEST_ISA float multiply_add(int64_t rounds, float factor) {
  Vector sums[kAccumulators];
  for (int j = 0; j < kAccumulators; ++j) sums[j] = Vector{} + static_cast<float>(j);
  for (int64_t i = 0; i < rounds; ++i) {
    for (Vector& sum : sums) sum = sum * factor + factor;
  }
  float total = 0;
  for (const Vector& sum : sums) total += sum[0];
  return total;
}

Roofline measure_host(int threads) {
  constexpr size_t kBytes = size_t{256} << 20;
  std::vector<Vector> data(kBytes / sizeof(Vector), Vector{} + 1.0f);
  std::vector<float> results(static_cast<size_t>(threads));
  const size_t share = data.size() / static_cast<size_t>(threads);
  const double read_seconds = shortest_of(5, [&] {
    on_threads(threads, [&](int i) {
      results[static_cast<size_t>(i)] = sum_of(data.data() + static_cast<size_t>(i) * share, share);
    });
  });
  constexpr int64_t kRounds = 2'000'000;
  const double math_seconds = shortest_of(
      3, [&] { on_threads(threads, [&](int i) { results[static_cast<size_t>(i)] = multiply_add(kRounds, 0.5f); }); });
  const double lanes = static_cast<double>(sizeof(Vector) / sizeof(float)) * kAccumulators;
  return {static_cast<double>(share * static_cast<size_t>(threads) * sizeof(Vector)) / read_seconds,
          2.0 * static_cast<double>(kRounds) * lanes * threads / math_seconds};
}

Roofline measure_copies(const Session& session) {
  constexpr size_t kBytes = size_t{512} << 20;
  const Buffer from(session.device, kBytes);
  const Buffer to(session.device, kBytes);
  const double seconds = shortest_of(5, [&] {
    session.stream.copy(to.data(), from.data(), kBytes, TM_DEVICE_TO_DEVICE);
    session.stream.synchronize();
  });
  return {2.0 * static_cast<double>(kBytes) / seconds, 0};
}

}  // namespace

Roofline measure_roofline(const Session& session) {
  const tm_device_props& props = session.device.props();
  return props.host_accessible ? measure_host(props.num_compute_units) : measure_copies(session);
}

}  // namespace turbomind::conformance
