// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>

#include "suite.h"

namespace turbomind::conformance {

// The limits a kernel is held against, measured when asked.
class Roofline {
 public:
  explicit Roofline(const Session& session);

  // Of whatever holds a working set of so many bytes, which is a cache for a small one: the quicker of reads and of
  // reads with writes back, by all of the host's threads where it reaches device memory. Elsewhere device copies; 0,
  // not measured, for what may fit in the device's cache.
  double bytes_per_second(double working_set);

  // float32 multiply-adds of the host's threads, two each; 0: not measured.
  double flops_per_second() const { return flops_per_second_; }

 private:
  int threads_;  // of the host; 0: it does not reach device memory
  double copies_per_second_ = 0;
  double flops_per_second_ = 0;
  std::map<int, double> of_size_;  // by the binary logarithm of the working set
};

}  // namespace turbomind::conformance
