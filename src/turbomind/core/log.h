// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>

#include "tm_backend.h"

namespace turbomind {

enum class LogLevel { kDebug = TM_LOG_DEBUG, kInfo = TM_LOG_INFO, kWarning = TM_LOG_WARNING, kError = TM_LOG_ERROR };

const char* to_string(LogLevel level);

// Process-wide. The sink (stderr unless replaced) is called by one thread at a time and must not log itself.
class Logger {
 public:
  using Sink = std::function<void(LogLevel, std::string_view message)>;

  static Logger& instance();

  void set_level(LogLevel level) { level_.store(level, std::memory_order_relaxed); }
  LogLevel level() const { return level_.load(std::memory_order_relaxed); }
  bool enabled(LogLevel level) const { return level >= this->level(); }
  // An empty sink restores stderr.
  void set_sink(Sink sink);
  void write(LogLevel level, std::string_view message);

 private:
  Logger() = default;

  std::atomic<LogLevel> level_{LogLevel::kInfo};
  std::mutex mutex_;  // guards sink_ and orders its calls
  Sink sink_;
};

// Streams the parts into one line; they are not formatted when the level is off.
template <class... Parts>
void log(LogLevel level, const Parts&... parts) {
  Logger& logger = Logger::instance();
  if (!logger.enabled(level)) return;
  std::ostringstream message;
  (message << ... << parts);
  logger.write(level, message.str());
}

}  // namespace turbomind
