// SPDX-License-Identifier: Apache-2.0
#include "config.h"

#include <sched.h>

#include <charconv>
#include <string>
#include <string_view>

#include "cpu_info.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cpu {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kMaxSpinMicroseconds = 1'000'000;

[[noreturn]] void reject(std::string_view key, std::string_view value, std::string_view expected) {
  throw abi::Error(TM_INVALID_ARGUMENT, "config key '" + std::string(key) + "': expected " + std::string(expected) +
                                            ", found '" + std::string(value) + "'");
}

int parse_int(std::string_view key, std::string_view value, int low, int high) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size() || number < low || number > high) {
    reject(key, value, "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return number;
}

Isa parse_isa(std::string_view value) {
  for (const Isa isa : available_isas()) {
    if (isa_name(isa) == value) return isa;
  }
  std::string names;
  for (const Isa isa : available_isas()) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
  reject("isa", value, "one that this processor has (" + names + ")");
}

std::vector<int> parse_cpus(std::string_view value) {
  std::vector<int> cpus;
  std::string_view rest = value;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    const size_t dash = item.find('-');
    const int first = parse_int("cpus", item.substr(0, dash), 0, CPU_SETSIZE - 1);
    const int last =
        dash == std::string_view::npos ? first : parse_int("cpus", item.substr(dash + 1), first, CPU_SETSIZE - 1);
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

void apply(Config& config, std::string_view key, std::string_view value) {
  if (key == "num_threads") {
    config.num_threads = parse_int(key, value, 0, kMaxThreads);
  } else if (key == "isa") {
    config.isa = parse_isa(value);
  } else if (key == "cpus") {
    config.cpus = parse_cpus(value);
  } else if (key == "spin_us") {
    config.spin = std::chrono::microseconds(parse_int(key, value, 0, kMaxSpinMicroseconds));
  } else if (key == "deterministic") {
    parse_int(key, value, 0, 1);
  } else {
    throw abi::Error(TM_INVALID_ARGUMENT,
                     "unknown config key '" + std::string(key) +
                         "'; the cpu backend knows num_threads, isa, cpus, spin_us, deterministic");
  }
}

}  // namespace

Config parse_config(const tm_config& config) {
  Config parsed;
  parsed.isa = available_isas().back();
  for (size_t i = 0; i < config.num_entries; ++i) {
    const tm_config_entry& entry = config.entries[i];
    apply(parsed, entry.key ? entry.key : "", entry.value ? entry.value : "");
  }
  if (parsed.num_threads == 0) {
    parsed.num_threads = parsed.cpus.empty() ? usable_physical_cores() : static_cast<int>(parsed.cpus.size());
  }
  return parsed;
}

}  // namespace turbomind::cpu
