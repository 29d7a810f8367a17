// SPDX-License-Identifier: Apache-2.0
//
// The one exception type of the core. The bindings turn its code into a typed Python exception.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace turbomind {

enum class ErrorCode {
  kInvalidArgument,
  kUnsupported,
  kOutOfMemory,
  kDevice,      // the call failed, the device is still usable
  kDeviceLost,  // the device and everything made from it is dead
  kInternal,
  kPromptTooLong,
  kQueueFull,
  kCancelled,
  kDeadlineExceeded,
};

const char* to_string(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// Throws Error(code) with the parts streamed one after another.
template <class... Parts>
[[noreturn, gnu::cold, gnu::noinline]] void fail(ErrorCode code, const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(code, message.str());
}

// Throws unless the condition holds. The message is only built on failure.
template <class... Parts>
inline void check(bool condition, ErrorCode code, const Parts&... parts) {
  if (!condition) [[unlikely]] {
    fail(code, parts...);
  }
}

}  // namespace turbomind
