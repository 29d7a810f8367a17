// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "suite.h"

namespace turbomind::conformance {

// Times representative shapes of the ops (all, or one) and prints, per shape: microseconds, GB/s with the percentage of
// the measured memory bandwidth, GFLOP/s with the percentage of the measured float32 peak. Returns an exit status.
int run_perf(const Session& session, const std::string& op);

}  // namespace turbomind::conformance
