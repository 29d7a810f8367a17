// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace turbomind::conformance {

// Cases a backend is known to fail, from backends/<name>/expected_failures.txt: one "<pattern> # <reason>" per line. A
// pattern is a case's name, or a part of it that ends with '*'. The list is strict: a listed case that passes fails
// the run, and so does a pattern that no case has.
class ExpectedFailures {
 public:
  // An empty path or a file that does not exist is an empty list. Throws Error for a line without a reason.
  static ExpectedFailures read(const std::string& path);

  // The reason, or nullptr. Marks the pattern as used.
  const std::string* find(const std::string& name);
  std::vector<std::string> unused() const;

 private:
  struct Line {
    std::string pattern;
    std::string reason;
    bool used;
  };
  std::vector<Line> lines_;
};

}  // namespace turbomind::conformance
