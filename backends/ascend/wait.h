// SPDX-License-Identifier: Apache-2.0
//
// Waits for work of a group of ranks, which another rank may keep from ending.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::ascend {

class Context;

// Waits for so many milliseconds at most; returns ACL's code.
using TimedWait = std::function<int(int32_t milliseconds)>;

// Waits by slices, between which it looks whether the group was aborted: a stream that was may never reach an event.
// What is queued may be there still when it throws: an abort drops it before the ranks' work is done. Throws
// abi::Error: TM_DEVICE_ERROR once it was, TM_DEVICE_LOST after the context's stall_seconds, and what the device
// reports.
void wait_in_slices(const Context& context, const abi::AbortFlag& aborted, const char* call, const TimedWait& wait);

}  // namespace turbomind::ascend
