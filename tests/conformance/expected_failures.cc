// SPDX-License-Identifier: Apache-2.0
#include "expected_failures.h"

#include <fstream>

#include "turbomind/core/error.h"

namespace turbomind::conformance {
namespace {

std::string trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

bool matches(const std::string& pattern, const std::string& name) {
  if (pattern.ends_with('*')) return name.starts_with(pattern.substr(0, pattern.size() - 1));
  return name == pattern;
}

}  // namespace

ExpectedFailures ExpectedFailures::read(const std::string& path) {
  ExpectedFailures result;
  std::ifstream file(path);
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const size_t hash = line.find('#');
    const std::string pattern = trim(line.substr(0, hash));
    if (pattern.empty()) continue;
    const std::string reason = hash == std::string::npos ? "" : trim(line.substr(hash + 1));
    check(!reason.empty(), ErrorCode::kInvalidArgument, path, ":", number, ": expected '<pattern> # <reason>', found '",
          line, "'");
    result.lines_.push_back({pattern, reason, false});
  }
  return result;
}

const std::string* ExpectedFailures::find(const std::string& name) {
  for (Line& line : lines_) {
    if (!matches(line.pattern, name)) continue;
    line.used = true;
    return &line.reason;
  }
  return nullptr;
}

std::vector<std::string> ExpectedFailures::unused() const {
  std::vector<std::string> patterns;
  for (const Line& line : lines_) {
    if (!line.used) patterns.push_back(line.pattern);
  }
  return patterns;
}

}  // namespace turbomind::conformance
