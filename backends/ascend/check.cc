// SPDX-License-Identifier: Apache-2.0
#include "check.h"

#include "library.h"

namespace turbomind::ascend {

tm_status status_of(int code) {
  switch (code) {
    case 0:
      return TM_OK;
    case kAclErrorStorageOverLimit:
    case kAclErrorMemoryAllocation:
    case kAclErrorResourceShort:
    case kAclErrorNoStreamResource:
      return TM_OUT_OF_MEMORY;
    default:
      break;
  }
  // 507000 to 507999: what the device reports of a task that failed; its stream and context answer nothing else.
  constexpr int kFirstDeviceFailure = 507000;
  constexpr int kLastDeviceFailure = 507999;
  return code >= kFirstDeviceFailure && code <= kLastDeviceFailure ? TM_DEVICE_LOST : TM_DEVICE_ERROR;
}

void check(int code, const char* call) {
  if (code == 0) return;
  std::string text = std::string(call) + ": error " + std::to_string(code);
  const auto recent_message = library().runtime.aclGetRecentErrMsg;
  const char* message = recent_message ? recent_message() : nullptr;
  if (message && *message) text += std::string(": ") + message;
  throw abi::Error(status_of(code), text);
}

}  // namespace turbomind::ascend
