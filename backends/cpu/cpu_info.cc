// SPDX-License-Identifier: Apache-2.0
#include "cpu_info.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <vector>

namespace turbomind::cpu {
namespace {

std::optional<std::string> first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

std::optional<uint64_t> read_number(const std::string& path) {
  const auto line = first_line(path);
  if (!line || line->empty() || line->find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return std::strtoull(line->c_str(), nullptr, 10);
}

// Value of the line "<key>   : value" of a /proc file.
std::optional<std::string> proc_value(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? std::string() : line.substr(start);
  }
  return std::nullopt;
}

// The process's folder of a cgroup controller and all folders above it ("" names the v2 hierarchy): a limit set on any
// of them holds. Inside a container the path may not be visible; the mount's root then stands for it.
std::vector<std::string> cgroup_folders(const std::string& controller) {
  const std::string root = controller.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller;
  std::vector<std::string> folders{root};
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string id, names, path;
    if (!std::getline(fields, id, ':') || !std::getline(fields, names, ':') || !std::getline(fields, path)) continue;
    if ((',' + names + ',').find(',' + controller + ',') == std::string::npos) continue;
    for (; path.size() > 1; path.erase(path.rfind('/'))) folders.push_back(root + path);
  }
  return folders;
}

double cpu_quota() {
  double quota = std::numeric_limits<double>::infinity();
  for (const std::string& folder : cgroup_folders("")) {
    const auto line = first_line(folder + "/cpu.max");
    double limit = 0, period = 0;
    if (line && (std::istringstream(*line) >> limit >> period) && period > 0) quota = std::min(quota, limit / period);
  }
  for (const std::string& folder : cgroup_folders("cpu")) {
    const auto limit = read_number(folder + "/cpu.cfs_quota_us");
    const auto period = read_number(folder + "/cpu.cfs_period_us");
    if (limit && period && *period > 0)
      quota = std::min(quota, static_cast<double>(*limit) / static_cast<double>(*period));
  }
  return quota;
}

// First CPU of the list of hardware threads that share a core with `cpu`.
int first_sibling(int cpu) {
  const auto line = first_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
  return line ? std::atoi(line->c_str()) : cpu;
}

uint64_t meminfo_bytes(const std::string& key) {
  const auto value = proc_value("/proc/meminfo", key);
  return value ? std::strtoull(value->c_str(), nullptr, 10) * 1024 : 0;
}

void apply_limit(MemoryInfo& info, std::optional<uint64_t> limit, std::optional<uint64_t> used) {
  if (!limit || *limit >= info.total_bytes) return;
  info.total_bytes = *limit;
  info.free_bytes = std::min(info.free_bytes, *limit - std::min(*limit, used.value_or(0)));
}

#if defined(__x86_64__)

// Documentation/arch/x86/xstate.rst of Linux.
constexpr int kArchRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
constexpr int kTileData = 18;                   // XFEATURE_XTILEDATA

// AMX-BF16, AMX-TILE, and the AVX512_BF16 of all processors that have those: the kernels use all three.
bool processor_has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kAmx = 1u << 22 | 1u << 24;
  if ((d & kAmx) != kAmx || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return false;
  constexpr unsigned kAvx512Bf16 = 1u << 5;
  return (a & kAvx512Bf16) != 0;
}

// Whether the system saves the tile registers (XCR0) when it switches threads.
bool system_saves_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsXsave = 1u << 27;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & kOsXsave) == 0) return false;
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileState = 3u << 17;
  return (low & kTileState) == kTileState;
}

#endif

}  // namespace

bool may_use_amx() {
#if defined(__x86_64__)
  static const bool allowed =
      processor_has_amx() && system_saves_tiles() && syscall(SYS_arch_prctl, kArchRequestPermission, kTileData) == 0;
  return allowed;
#else
  return false;
#endif
}

std::string processor_name() { return proc_value("/proc/cpuinfo", "model name").value_or("CPU"); }

int usable_physical_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  std::vector<int> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cores.push_back(first_sibling(cpu));
  }
  std::sort(cores.begin(), cores.end());
  const auto distinct = std::unique(cores.begin(), cores.end()) - cores.begin();
  const double limit = std::min(static_cast<double>(distinct), std::ceil(cpu_quota()));
  return std::max(1, static_cast<int>(limit));
}

MemoryInfo memory_info() {
  MemoryInfo info{meminfo_bytes("MemAvailable"), meminfo_bytes("MemTotal")};
  for (const std::string& folder : cgroup_folders("")) {
    apply_limit(info, read_number(folder + "/memory.max"), read_number(folder + "/memory.current"));
  }
  for (const std::string& folder : cgroup_folders("memory")) {
    apply_limit(info, read_number(folder + "/memory.limit_in_bytes"), read_number(folder + "/memory.usage_in_bytes"));
  }
  return info;
}

}  // namespace turbomind::cpu
