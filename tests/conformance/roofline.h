// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "suite.h"

namespace turbomind::conformance {

// The limits a kernel is held against, measured when asked.
struct Roofline {
  double bytes_per_second;  // reads by the host's threads where it reaches device memory, else device copies
  double flops_per_second;  // float32 multiply-adds of the host's threads, two each; 0: not measured
};

Roofline measure_roofline(const Session& session);

}  // namespace turbomind::conformance
