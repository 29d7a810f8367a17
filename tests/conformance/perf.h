// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "suite.h"

namespace turbomind::conformance {

// Times representative shapes of the ops (all, or one) and prints, per shape: microseconds, GB/s with the percentage of
// what was measured for the level of memory that holds the shape, GFLOP/s and, where the work is in float32, the
// percentage of the measured peak. Returns an exit status.
int run_perf(const Session& session, const std::string& op);

}  // namespace turbomind::conformance
