// SPDX-License-Identifier: Apache-2.0
#include "config.h"

#include <sched.h>

#include <string>
#include <string_view>

#include "cpu_info.h"
#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cpu {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kMaxSpinMicroseconds = 1'000'000;

Isa parse_isa(std::string_view value) {
  for (const Isa isa : available_isas()) {
    if (isa_name(isa) == value) return isa;
  }
  std::string names;
  for (const Isa isa : available_isas()) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
  abi::reject_setting("isa", value, "one that this processor has (" + names + ")");
}

std::vector<int> parse_cpus(std::string_view value) {
  std::vector<int> cpus;
  std::string_view rest = value;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    const size_t dash = item.find('-');
    const int first = abi::parse_int_setting("cpus", item.substr(0, dash), 0, CPU_SETSIZE - 1);
    const int last = dash == std::string_view::npos
                         ? first
                         : abi::parse_int_setting("cpus", item.substr(dash + 1), first, CPU_SETSIZE - 1);
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

// False: no such key.
bool apply(Config& config, std::string_view key, std::string_view value) {
  if (key == "num_threads") {
    config.num_threads = abi::parse_int_setting(key, value, 0, kMaxThreads);
  } else if (key == "isa") {
    config.isa = parse_isa(value);
  } else if (key == "cpus") {
    config.cpus = parse_cpus(value);
  } else if (key == "spin_us") {
    config.spin = std::chrono::microseconds(abi::parse_int_setting(key, value, 0, kMaxSpinMicroseconds));
  } else if (key == "deterministic") {
    abi::parse_int_setting(key, value, 0, 1);
  } else {
    return false;
  }
  return true;
}

}  // namespace

Config parse_config(const tm_config& config) {
  Config parsed;
  parsed.isa = available_isas().back();
  abi::for_each_setting(config, "cpu", "num_threads, isa, cpus, spin_us, deterministic",
                        [&](auto key, auto value) { return apply(parsed, key, value); });
  if (parsed.num_threads == 0) {
    parsed.num_threads = parsed.cpus.empty() ? usable_physical_cores() : static_cast<int>(parsed.cpus.size());
  }
  return parsed;
}

}  // namespace turbomind::cpu
