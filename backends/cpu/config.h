// SPDX-License-Identifier: Apache-2.0
//
// The settings of one context, parsed from the host's key/value pairs.
#pragma once

#include <chrono>
#include <vector>

#include "kernels/kernel_table.h"
#include "turbomind/abi/tm_backend.h"

namespace turbomind::cpu {

struct Config {
  int num_threads = 0;                  // "num_threads"; 0: one per physical core the process may use
  Isa isa = Isa::kPortable;             // "isa"; default: the best one this processor has
  std::vector<int> cpus;                // "cpus", e.g. "0-3,8": worker i is pinned to the i-th; empty: not pinned
  std::chrono::microseconds spin{200};  // "spin_us": how long an idle worker polls before it sleeps
};

// Throws abi::Error (TM_INVALID_ARGUMENT) naming the key for an unknown key or a bad value. "deterministic" is accepted
// with both values: results never depend on the batch here.
Config parse_config(const tm_config& config);

}  // namespace turbomind::cpu
