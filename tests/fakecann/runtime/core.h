// SPDX-License-Identifier: Apache-2.0
//
// What every part of the emulator shares: failures, configuration, the one lock and the entry of each exported
// function.
#ifndef FAKECANN_RUNTIME_CORE_H_
#define FAKECANN_RUNTIME_CORE_H_

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string>
#include <utility>

#pragma GCC visibility push(default)

namespace fakecann {

// Codes that the emulator answers with; each is a public code of the interface.
enum Code : int {
  kOk = 0,
  kUninitialized = 100001,
  kRepeatInitialize = 100002,
  kInvalidParameter = 107000,
  kInvalidDevice = 107001,
  kNoContext = 107002,
  kStreamContext = 107003,
  kInvalidHandle = 107017,
  kStreamAbort = 107023,
  kCaptureDependency = 107024,
  kStreamUnjoined = 107025,
  kStreamCaptured = 107027,
  kStreamNotCaptured = 107029,
  kCaptureUnsupported = 107030,
  kCaptureImplicit = 107031,
  kTaskGroupStatus = 107033,
  kCaptureUnmatched = 107036,
  kGraphRunning = 107037,
  kCaptureWrongThread = 107038,
  kUpdateFailed = 107040,
  kCaptureBlocksAsync = 107041,
  kNotSupported = 207000,
  kOutOfMemory = 207001,
  kNoEvents = 207007,
  kNoStreams = 207008,
  kUpdateUnsupported = 207019,
  kAiCoreException = 507015,
  kStreamSyncTimeout = 507046,
  kEventSyncTimeout = 507047,
  kCollectiveTimeout = 507048,
  kDeviceLost = 507899,
  kCaptureInvalidated = 507903,
  kNullParameter = 161001,
  kBadParameter = 161002,
  kRuntimeError = 361001,
  kTilingError = 561002,
  kExecutorError = 561101,
  kInnerNull = 561103,
};

class Failure : public std::exception {
 public:
  Failure(int code, std::string text) : code_(code), text_(std::move(text)) {}
  int code() const { return code_; }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  int code_;
  std::string text_;
};

[[noreturn]] void fail(int code, const std::string& text);

enum class Schedule { kImmediate, kLazy, kRandom };

struct Profile {
  const char* name;
  const char* soc;
  const char* cann_version;
  unsigned bit;  // of a contract's profile mask
  int streams;
  int events;
};

// A2 comes twice: with the operators of CANN 8.5 and with those of CANN 9.
inline constexpr unsigned kA2 = 1, kA3 = 2, k310P = 4, k950 = 8, kA2Cann85 = 16, kEveryProfile = 31;

struct Config {
  Profile profile;
  Schedule schedule = Schedule::kImmediate;
  uint64_t seed = 1;
  int devices = 8;
  size_t memory = size_t{2} << 30;
  int wait_ms = 20000;  // a wait that nothing can end any more becomes a timeout
  bool exact_workspace = false;
  bool log = false;
};

// The emulator's settings; read from the environment at first use, changed by the functions of abi/control.h.
Config& config();
// Uniform in [0, below); the same numbers in the same order for the same seed.
uint64_t draw(uint64_t below);

// Holds the emulator's lock while an exported function works; counts the call for fault injection.
class Entry {
 public:
  explicit Entry(const char* function, bool is_injectable = true);
  ~Entry();
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;
};

// Inside an Entry: gives the lock away for as long as `body` runs, or until something happened or `ms` have passed.
void unlocked(void (*body)(void*), void* argument);
bool wait_for_news(int ms);
void tell_news();

// Notes the failure for aclGetRecentErrMsg and gives its code back.
int report(const char* function, const Failure& failure);
const char* recent_error();
void log_line(const std::string& text);

// Faults of FAKECANN_FAULTS (abi/control.h has the grammar).
void set_faults(const std::string& text);
int64_t fault_value(const char* name, int64_t otherwise);
// Counts one task that runs on a device; throws the fault that is due.
void count_task(const std::string& name);
// Counts one collective; true for the one that never ends.
bool fault_is_due(const char* name);
bool device_lost();
void forget_device_loss();

template <typename Body>
int guarded(const char* function, Body&& body) {
  try {
    Entry entry(function);
    body();
    return kOk;
  } catch (const Failure& failure) {
    return report(function, failure);
  } catch (const std::exception& error) {
    return report(function, Failure(kRuntimeError, error.what()));
  }
}

}  // namespace fakecann

#pragma GCC visibility pop

#endif  // FAKECANN_RUNTIME_CORE_H_
