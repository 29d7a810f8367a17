// SPDX-License-Identifier: Apache-2.0
//
// What this CPU can do at most: bytes read per second and arithmetic per second, by thread count.
// Usage: machine_limits THREADS SECONDS_PER_PROBE REPEATS
// Prints one JSON object; rates are summed over threads. Kernels are compiled with target
// attributes and chosen at run time, so that the binary needs no -m flag and runs anywhere.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

// Independent accumulator chains: latency (4 to 5 cycles) times two issue ports, rounded up.
constexpr int kChains = 12;
constexpr int64_t kInnerSteps = 4096;
// Beyond any last-level cache; and inside most last-level caches but outside the second level.
constexpr size_t kMemoryBytes = size_t{512} << 20;
constexpr size_t kLastLevelBytes = size_t{16} << 20;

using Kernel = void (*)(const uint8_t* data, size_t bytes);

// The empty asm statements below say that a value is changed ("+") or used: equal chains stay
// separate, and loops whose result nobody reads stay in the program.

struct Probe {
  const char* name;
  Kernel kernel;
  size_t bytes;          // the threads share them, each reads its part; 0 for arithmetic
  double work_per_call;  // bytes, or operations (a multiply and an add count as two)
};

void read_portable(const uint8_t* data, size_t bytes) {
  const auto* words = reinterpret_cast<const uint64_t*>(data);
  uint64_t sums[8] = {};
  for (size_t i = 0; i < bytes / sizeof(uint64_t); i += 8) {
    for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  for (uint64_t sum : sums) asm volatile("" : : "r"(sum));
}

#if defined(__x86_64__)

__attribute__((target("avx512f"))) void read_avx512(const uint8_t* data, size_t bytes) {
  __m512i sums[4] = {};
  for (size_t i = 0; i < bytes; i += 256) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      sums[j] = _mm512_add_epi64(sums[j], _mm512_load_si512(data + i + 64 * j));
    }
  }
  for (const auto& sum : sums) asm volatile("" : : "v"(sum));
}

__attribute__((target("avx2,fma"))) void fma_fp32_avx2(const uint8_t*, size_t) {
  __m256 acc[kChains];
  for (auto& value : acc) {
    value = _mm256_set1_ps(1.0F);
    asm volatile("" : "+x"(value));
  }
  const __m256 x = _mm256_set1_ps(0.999F);
  for (int64_t i = 0; i < kInnerSteps; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) acc[j] = _mm256_fmadd_ps(acc[j], x, x);
  }
  for (const auto& value : acc) asm volatile("" : : "x"(value));
}

__attribute__((target("avx512f"))) void fma_fp32_avx512(const uint8_t*, size_t) {
  __m512 acc[kChains];
  for (auto& value : acc) {
    value = _mm512_set1_ps(1.0F);
    asm volatile("" : "+v"(value));
  }
  const __m512 x = _mm512_set1_ps(0.999F);
  for (int64_t i = 0; i < kInnerSteps; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) acc[j] = _mm512_fmadd_ps(acc[j], x, x);
  }
  for (const auto& value : acc) asm volatile("" : : "v"(value));
}

__attribute__((target("avx512f,avx512vnni"))) void dot_int8_avx512(const uint8_t*, size_t) {
  __m512i acc[kChains] = {};
  for (auto& value : acc) asm volatile("" : "+v"(value));
  const __m512i x = _mm512_set1_epi8(3);
  for (int64_t i = 0; i < kInnerSteps; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) acc[j] = _mm512_dpbusd_epi32(acc[j], x, x);
  }
  for (const auto& value : acc) asm volatile("" : : "v"(value));
}

__attribute__((target("avx512f,avx512bf16"))) void dot_bf16_avx512(const uint8_t*, size_t) {
  __m512 acc[kChains] = {};
  for (auto& value : acc) asm volatile("" : "+v"(value));
  const __m512i x = _mm512_set1_epi16(0x3F00);  // 0.5
  for (int64_t i = 0; i < kInnerSteps; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      acc[j] = _mm512_dpbf16_ps(acc[j], (__m512bh)x, (__m512bh)x);
    }
  }
  for (const auto& value : acc) asm volatile("" : : "v"(value));
}

#endif

Probe arithmetic(const char* name, Kernel kernel, int operations_per_instruction) {
  return {name, kernel, 0, double(kInnerSteps) * kChains * operations_per_instruction};
}

std::vector<Probe> probes() {
  Kernel read = read_portable;
  std::vector<Probe> found;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    read = read_avx512;
    found.push_back(arithmetic("fp32_fma", fma_fp32_avx512, 16 * 2));
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    found.push_back(arithmetic("fp32_fma", fma_fp32_avx2, 8 * 2));
  }
  if (__builtin_cpu_supports("avx512bf16")) {
    found.push_back(arithmetic("bf16_dot", dot_bf16_avx512, 32 * 2));
  }
  if (__builtin_cpu_supports("avx512vnni")) {
    found.push_back(arithmetic("int8_dot", dot_int8_avx512, 64 * 2));
  }
#endif
  found.push_back({"memory_read", read, kMemoryBytes, double(kMemoryBytes)});
  found.push_back({"last_level_cache_read", read, kLastLevelBytes, double(kLastLevelBytes)});
  return found;
}

void pin_to_cpu(int index) {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(index, &set);
  // Best effort: in a container with fewer CPUs the probe runs unpinned.
  (void)pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
#else
  (void)index;
#endif
}

// Calls the kernel until `seconds` have passed; returns its rate in work per second.
double rate_of_thread(const Probe& probe, const uint8_t* data, size_t bytes, double seconds) {
  const auto start = Clock::now();
  double elapsed = 0.0;
  int64_t calls = 0;
  do {
    probe.kernel(data, bytes);
    ++calls;
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  } while (elapsed < seconds);
  const double share = probe.bytes == 0 ? 1.0 : double(bytes) / double(probe.bytes);
  return double(calls) * probe.work_per_call * share / elapsed;
}

// Threads split the probe's bytes among them, as the rows of one weight matrix are split.
double rate_of_all(const Probe& probe, const uint8_t* data, int threads, double seconds) {
  std::atomic<int> waiting{threads};
  std::vector<double> rates(static_cast<size_t>(threads));
  std::vector<std::thread> workers;
  const size_t bytes = probe.bytes / static_cast<size_t>(threads) / 256 * 256;
  for (int index = 0; index < threads; ++index) {
    workers.emplace_back([&, index] {
      pin_to_cpu(index);
      --waiting;
      while (waiting.load() > 0) std::this_thread::yield();
      const auto i = static_cast<size_t>(index);
      rates[i] = rate_of_thread(probe, data + i * bytes, bytes, seconds);
    });
  }
  double total = 0.0;
  for (auto& worker : workers) worker.join();
  for (double rate : rates) total += rate;
  return total;
}

struct AlignedFree {
  void operator()(uint8_t* data) const { std::free(data); }
};

int run(int threads, double seconds, int repeats) {
  constexpr size_t kAlignment = 4096;
  std::unique_ptr<uint8_t, AlignedFree> data(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, kMemoryBytes)));
  if (!data) return EXIT_FAILURE;
  std::fill_n(data.get(), kMemoryBytes, uint8_t{1});  // untouched pages would be one shared page
  std::printf("{");
  const char* separator = "";
  for (const Probe& probe : probes()) {
    rate_of_all(probe, data.get(), threads, seconds);  // wakes the clock and the caches up
    std::printf("%s\"%s\": [", separator, probe.name);
    for (int i = 0; i < repeats; ++i) {
      const double rate = rate_of_all(probe, data.get(), threads, seconds);
      std::printf("%s%.6g", i == 0 ? "" : ", ", rate);
    }
    std::printf("]");
    separator = ", ";
  }
  std::printf("}\n");
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s THREADS SECONDS_PER_PROBE REPEATS\n", argv[0]);
    return EXIT_FAILURE;
  }
  const int threads = std::atoi(argv[1]);
  const double seconds = std::atof(argv[2]);
  const int repeats = std::atoi(argv[3]);
  if (threads < 1 || seconds <= 0.0 || repeats < 1) {
    std::fprintf(stderr, "THREADS, SECONDS_PER_PROBE and REPEATS must be positive\n");
    return EXIT_FAILURE;
  }
  return run(threads, seconds, repeats);
}
