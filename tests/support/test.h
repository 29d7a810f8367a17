// SPDX-License-Identifier: Apache-2.0
//
// The check harness of the C++ tests: no dependency beyond the compiler.
//
//   TEST(arena_reports_its_peak) { EXPECT_EQ(arena.peak(), 512u); }
//
// A failed EXPECT is reported and the test goes on; an exception ends the test as failed. The executable runs every
// TEST linked into it, or those whose name contains its argument, and exits with 1 if any failed.
#pragma once

#include <cmath>
#include <functional>
#include <sstream>
#include <string>

namespace turbomind::test {

struct Registration {
  Registration(const char* name, void (*body)());
};

void report_failure(const char* file, int line, const std::string& message);

template <class A, class B>
void expect_equal(const char* file, int line, const char* text_a, const char* text_b, const A& a, const B& b) {
  if (a == b) return;
  std::ostringstream message;
  message << text_a << " == " << text_b << ": found " << a << " and " << b;
  report_failure(file, line, message.str());
}

inline void expect_near(const char* file, int line, const char* text, double found, double expected, double tolerance) {
  if (std::abs(found - expected) <= tolerance) return;
  std::ostringstream message;
  message.precision(9);
  message << text << ": expected " << expected << " +- " << tolerance << ", found " << found;
  report_failure(file, line, message.str());
}

// fn must throw an ErrorType whose what() contains part; accept decides on the rest (e.g. the code).
template <class ErrorType>
void expect_throws(const char* file, int line, const std::function<void()>& fn, const std::string& part,
                   const std::function<bool(const ErrorType&)>& accept) {
  try {
    fn();
  } catch (const ErrorType& error) {
    const std::string what = error.what();
    if (what.find(part) == std::string::npos) {
      report_failure(file, line, "expected an error with '" + part + "', found '" + what + "'");
    } else if (!accept(error)) {
      report_failure(file, line, "expected an error of another code: '" + what + "'");
    }
    return;
  }
  report_failure(file, line, "expected an error with '" + part + "', found none");
}

}  // namespace turbomind::test

#define TEST(name)                                                                       \
  static void test_##name();                                                             \
  static const ::turbomind::test::Registration registration_##name(#name, &test_##name); \
  static void test_##name()

#define EXPECT(condition)                                                                            \
  do {                                                                                               \
    if (!(condition)) ::turbomind::test::report_failure(__FILE__, __LINE__, "expected " #condition); \
  } while (false)
#define EXPECT_EQ(a, b) ::turbomind::test::expect_equal(__FILE__, __LINE__, #a, #b, (a), (b))
#define EXPECT_NEAR(found, expected, tolerance) \
  ::turbomind::test::expect_near(__FILE__, __LINE__, #found, (found), (expected), (tolerance))
// For turbomind::Error (include core/error.h): its code, and a part of its message.
#define EXPECT_ERROR(statement, error_code, part)       \
  ::turbomind::test::expect_throws<::turbomind::Error>( \
      __FILE__, __LINE__, [&] { statement; }, part,     \
      [&](const ::turbomind::Error& error) { return error.code() == (error_code); })
