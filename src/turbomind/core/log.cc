// SPDX-License-Identifier: Apache-2.0
#include "turbomind/core/log.h"

#include <cstdio>
#include <utility>

namespace turbomind {

const char* to_string(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "unknown";
}

Logger& Logger::instance() {
  // Never destroyed: plug-ins may log from threads that outlive main().
  static Logger* const logger = new Logger;
  return *logger;
}

void Logger::set_sink(Sink sink) {
  const std::lock_guard lock(mutex_);
  sink_ = std::move(sink);
}

void Logger::write(LogLevel level, std::string_view message) {
  if (!enabled(level)) return;
  const std::lock_guard lock(mutex_);
  if (sink_) {
    sink_(level, message);
  } else {
    std::fprintf(stderr, "[turbomind] %s: %.*s\n", to_string(level), static_cast<int>(message.size()), message.data());
  }
}

}  // namespace turbomind
