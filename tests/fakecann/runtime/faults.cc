// SPDX-License-Identifier: Apache-2.0
//
// Fault injection; abi/control.h has the grammar.
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <vector>

#include "runtime/core.h"

namespace fakecann {
namespace {

struct CallFault {
  std::string function;
  int64_t left;
  int code;
};

struct Faults {
  std::vector<CallFault> calls;
  std::map<std::string, int64_t> values;
  int64_t task_left = 0;
  int task_code = 0;
  int64_t lost_left = 0;
  bool is_lost = false;
};

Faults& faults() {
  static auto* the_faults = new Faults;
  return *the_faults;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

void set_fault(const std::string& name, const std::vector<std::string>& values) {
  const auto number = [&](size_t i) { return i < values.size() ? std::strtoll(values[i].c_str(), nullptr, 10) : 0; };
  if (name == "call" && values.size() == 3) {
    faults().calls.push_back({values[0], number(1), static_cast<int>(number(2))});
  } else if (name == "task" && values.size() == 2) {
    faults().task_left = number(0);
    faults().task_code = static_cast<int>(number(1));
  } else if (name == "lost" && values.size() == 1) {
    faults().lost_left = number(0) + 1;
  } else if (name == "memory" || name == "streams" || name == "events" || name == "stall" || name == "unjoined") {
    faults().values[name] = number(0);
  } else {
    fail(kInvalidParameter, "no such fault: " + name);
  }
}

}  // namespace

void set_faults(const std::string& text) {
  const bool is_lost = faults().is_lost;
  faults() = Faults{};
  faults().is_lost = is_lost;
  for (const std::string& fault : split(text, ';')) {
    const size_t equals = fault.find('=');
    if (equals == std::string::npos) fail(kInvalidParameter, "a fault is name=value, found " + fault);
    set_fault(fault.substr(0, equals), split(fault.substr(equals + 1), ':'));
  }
}

int64_t fault_value(const char* name, int64_t otherwise) {
  const auto found = faults().values.find(name);
  return found == faults().values.end() ? otherwise : found->second;
}

// Uses up one unit of a countable resource that a fault bounds; false when none is left.
bool take_fault_unit(const char* name, int64_t units) {
  const auto found = faults().values.find(name);
  if (found == faults().values.end()) return true;
  if (found->second < units) return false;
  found->second -= units;
  return true;
}

void count_call(const char* function) {
  for (CallFault& fault : faults().calls) {
    if (fault.function == function && fault.left > 0 && --fault.left == 0) {
      fail(fault.code, std::string("injected failure of ") + function);
    }
  }
}

void count_task(const std::string& name) {
  if (faults().lost_left > 0 && --faults().lost_left == 0) {
    faults().is_lost = true;
    fail(kDeviceLost, "injected loss of the device at " + name);
  }
  if (faults().task_left > 0 && --faults().task_left == 0) fail(faults().task_code, "injected failure of task " + name);
}

// Counts down to the one occurrence that a fault names.
bool fault_is_due(const char* name) {
  const auto found = faults().values.find(name);
  return found != faults().values.end() && found->second > 0 && --found->second == 0;
}

bool device_lost() { return faults().is_lost; }

void forget_device_loss() { faults().is_lost = false; }

}  // namespace fakecann
