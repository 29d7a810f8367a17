// SPDX-License-Identifier: Apache-2.0
#include "roofline.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
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

TM_WIDEST_ISA void scale(Vector* data, size_t count, float factor) {
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (size_t j = 0; j < 8; ++j) data[i + j] *= factor;
  }
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

// Bytes per second that fn(first vector, vectors) moves on all threads' shares of a working set, over and over.
double host_bandwidth(int threads, size_t bytes, double bytes_moved, const std::function<void(Vector*, size_t)>& fn) {
  constexpr size_t kBytesPerRun = size_t{1} << 29;
  const size_t share = std::max<size_t>(bytes / sizeof(Vector) / static_cast<size_t>(threads), 8);
  const size_t vectors = share * static_cast<size_t>(threads);
  // std::allocator does not see the alignment of a vector type.
  const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(sizeof(Vector), vectors * sizeof(Vector)),
                                                      std::free);
  auto* data = static_cast<Vector*>(memory.get());
  std::fill_n(data, vectors, Vector{} + 1.0f);
  const size_t passes = std::max<size_t>(1, kBytesPerRun / (vectors * sizeof(Vector)));
  const double seconds = shortest_of(5, [&] {
    on_threads(threads, [&](int i) {
      for (size_t pass = 0; pass < passes; ++pass) {
        fn(data + static_cast<size_t>(i) * share, share);
        asm volatile("" ::: "memory");  // the passes are all made
      }
    });
  });
  return bytes_moved * static_cast<double>(vectors * sizeof(Vector) * passes) / seconds;
}

double host_flops(int threads) {
  constexpr int64_t kRounds = 2'000'000;
  std::vector<float> results(static_cast<size_t>(threads));
  const double seconds = shortest_of(
      3, [&] { on_threads(threads, [&](int i) { results[static_cast<size_t>(i)] = multiply_add(kRounds, 0.5f); }); });
  const double lanes = static_cast<double>(sizeof(Vector) / sizeof(float)) * kAccumulators;
  return 2.0 * static_cast<double>(kRounds) * lanes * threads / seconds;
}

constexpr size_t kCopyBytes = size_t{512} << 20;  // no device's cache holds as many

double measure_copies(const Session& session) {
  const Buffer from(session.device, kCopyBytes);
  const Buffer to(session.device, kCopyBytes);
  const double seconds = shortest_of(5, [&] {
    session.stream.copy(to.data(), from.data(), kCopyBytes, TM_DEVICE_TO_DEVICE);
    session.stream.synchronize();
  });
  return 2.0 * static_cast<double>(kCopyBytes) / seconds;
}

}  // namespace

Roofline::Roofline(const Session& session)
    : threads_(session.device.props().host_accessible ? session.device.props().num_compute_units : 0) {
  if (threads_ > 0) {
    flops_per_second_ = host_flops(threads_);
  } else {
    copies_per_second_ = measure_copies(session);
  }
}

double Roofline::bytes_per_second(double working_set) {
  constexpr double kBeyondDeviceCaches = 200e6;
  if (threads_ == 0) return working_set < kBeyondDeviceCaches ? 0 : copies_per_second_;
  // The smaller power of two: it fits where the working set fits.
  const int size = std::clamp(static_cast<int>(std::log2(working_set)), 12, 28);
  double& found = of_size_[size];
  if (found == 0) {
    std::atomic<float> result = 1;
    const size_t bytes = size_t{1} << size;
    const double reads =
        host_bandwidth(threads_, bytes, 1, [&](Vector* data, size_t count) { result = sum_of(data, count); });
    const double updates = host_bandwidth(
        threads_, bytes, 2, [&, factor = result / result](Vector* data, size_t count) { scale(data, count, factor); });
    found = std::max(reads, updates);
  }
  return found;
}

}  // namespace turbomind::conformance
