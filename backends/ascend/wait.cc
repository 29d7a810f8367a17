// SPDX-License-Identifier: Apache-2.0
#include "wait.h"

#include <chrono>
#include <string>

#include "acl/types.h"
#include "check.h"
#include "context.h"

namespace turbomind::ascend {

void wait_in_slices(const Context& context, const abi::AbortFlag& aborted, const char* call, const TimedWait& wait) {
  using Clock = std::chrono::steady_clock;
  constexpr int32_t kSlice = 20;  // milliseconds: what an abort waits at most, and too long to cost the host anything
  const auto begin = Clock::now();
  const std::chrono::seconds limit(context.stall_seconds());
  while (true) {
    const int code = wait(kSlice);
    if (code != kAclErrorStreamWaitTimeout && code != kAclErrorEventWaitTimeout) return check(code, call);
    if (aborted) throw abi::Error(TM_DEVICE_ERROR, std::string(call) + ": the group of ranks was aborted");
    if (limit.count() > 0 && Clock::now() - begin > limit) {
      throw abi::Error(TM_DEVICE_LOST, std::string(call) + ": no end after the stall_seconds of " +
                                           std::to_string(limit.count()) +
                                           " (a rank did not reach a collective: look for an earlier error of another "
                                           "rank)");
    }
  }
}

}  // namespace turbomind::ascend
