// SPDX-License-Identifier: Apache-2.0
#include "support/test.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

namespace turbomind::test {
namespace {

struct Case {
  const char* name;
  void (*body)();
};

std::vector<Case>& cases() {
  static std::vector<Case> list;
  return list;
}

std::atomic<int> failures{0};  // tests may have threads

}  // namespace

Registration::Registration(const char* name, void (*body)()) { cases().push_back({name, body}); }

void report_failure(const char* file, int line, const std::string& message) {
  std::printf("  %s:%d: %s\n", file, line, message.c_str());
  ++failures;
}

}  // namespace turbomind::test

int main(int argc, char** argv) {
  using turbomind::test::failures;
  int passed = 0;
  int failed = 0;
  for (const auto& test : turbomind::test::cases()) {
    if (argc > 1 && !std::strstr(test.name, argv[1])) continue;
    failures = 0;
    try {
      test.body();
    } catch (const std::exception& error) {
      turbomind::test::report_failure(test.name, 0, std::string("threw: ") + error.what());
    }
    std::printf("%s %s\n", failures > 0 ? "FAIL" : "ok  ", test.name);
    ++(failures > 0 ? failed : passed);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed || passed == 0;
}
