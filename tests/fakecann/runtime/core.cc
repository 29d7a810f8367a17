// SPDX-License-Identifier: Apache-2.0
#include "runtime/core.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

namespace fakecann {
namespace {

constexpr Profile kProfiles[] = {
    {"a2", "Ascend910B3", "9.0.0", kA2, 1984, 65536},        {"a2-8.5", "Ascend910B3", "8.5.0", kA2Cann85, 1984, 65536},
    {"a3", "Ascend910_9391", "9.0.0", kA3, 1984, 65536},     {"310p", "Ascend310P3", "8.5.0", k310P, 1024, 1023},
    {"950", "Ascend950PR_9589", "9.2.0", k950, 1984, 65536},
};

struct Lock {
  std::mutex mutex;
  std::condition_variable news;
};

// Never destroyed: clients call in from their own destructors.
Lock& lock() {
  static auto* the_lock = new Lock;
  return *the_lock;
}

thread_local std::unique_lock<std::mutex>* held = nullptr;
thread_local bool in_callback = false;
thread_local std::string last_error;

std::mt19937_64& generator() {
  static auto* numbers = new std::mt19937_64(1);
  return *numbers;
}

Schedule parse_schedule(const std::string& text, uint64_t& seed) {
  if (text == "immediate") return Schedule::kImmediate;
  if (text == "lazy") return Schedule::kLazy;
  if (text.rfind("random", 0) != 0) fail(kInvalidParameter, "no such schedule: " + text);
  if (text.size() > 7) seed = std::strtoull(text.c_str() + 7, nullptr, 10);
  return Schedule::kRandom;
}

Profile find_profile(const std::string& name) {
  for (const Profile& profile : kProfiles) {
    if (name == profile.name) return profile;
  }
  fail(kInvalidParameter, "no such profile: " + name);
}

}  // namespace

void fail(int code, const std::string& text) { throw Failure(code, text); }

void configure(Config& config, const std::string& name, const std::string& value) {
  if (name == "PROFILE") {
    config.profile = find_profile(value);
  } else if (name == "SCHEDULE") {
    config.schedule = parse_schedule(value, config.seed);
    generator().seed(config.seed);
  } else if (name == "DEVICES") {
    config.devices = std::atoi(value.c_str());
  } else if (name == "MEMORY_MB") {
    config.memory = std::strtoull(value.c_str(), nullptr, 10) << 20;
  } else if (name == "WAIT_MS") {
    config.wait_ms = std::atoi(value.c_str());
  } else if (name == "WORKSPACE") {
    config.exact_workspace = value == "exact";
  } else if (name == "LOG") {
    config.log = value == "1";
  } else if (name == "FAULTS") {
    set_faults(value);
  } else {
    fail(kInvalidParameter, "no such setting: " + name);
  }
}

Config& config() {
  static auto* the_config = [] {
    auto* made = new Config{.profile = kProfiles[0]};
    for (const char* name : {"PROFILE", "SCHEDULE", "DEVICES", "MEMORY_MB", "WAIT_MS", "WORKSPACE", "LOG", "FAULTS"}) {
      const char* value = std::getenv((std::string("FAKECANN_") + name).c_str());
      if (value != nullptr && *value != '\0') configure(*made, name, value);
    }
    return made;
  }();
  return *the_config;
}

uint64_t draw(uint64_t below) { return generator()() % below; }

// faults.cc
void count_call(const char* function);

Entry::Entry(const char* function, bool is_injectable) {
  if (in_callback) fail(kNotSupported, std::string(function) + " called from a host function of a stream");
  auto* taken = new std::unique_lock<std::mutex>(lock().mutex);
  held = taken;
  try {
    if (config().log) log_line(function);
    const bool is_cleanup =
        std::strcmp(function, "aclrtResetDevice") == 0 || std::strncmp(function, "fakecann", 8) == 0;
    if (is_injectable) count_call(function);
    if (device_lost() && is_injectable && !is_cleanup) fail(kDeviceLost, "the device is lost");
  } catch (...) {
    held = nullptr;
    delete taken;
    throw;
  }
}

Entry::~Entry() {
  delete held;
  held = nullptr;
}

void unlocked(void (*body)(void*), void* argument) {
  held->unlock();
  in_callback = true;
  body(argument);
  in_callback = false;
  held->lock();
}

bool wait_for_news(int ms) {
  return lock().news.wait_for(*held, std::chrono::milliseconds(ms)) == std::cv_status::no_timeout;
}

void tell_news() { lock().news.notify_all(); }

int report(const char* function, const Failure& failure) {
  last_error = std::string(function) + ": " + failure.what() + " [" + std::to_string(failure.code()) + "]";
  if (config().log) log_line("REFUSED " + last_error);
  return failure.code();
}

const char* recent_error() { return last_error.c_str(); }

void log_line(const std::string& text) { std::fprintf(stderr, "[fakecann] %s\n", text.c_str()); }

}  // namespace fakecann
