// SPDX-License-Identifier: Apache-2.0
#include "check.h"

#include "library.h"

namespace turbomind::ascend {
namespace {

// What a user can do about a code; empty: nothing that this back end knows of.
const char* advice(int code) {
  switch (code) {
    case kHcclErrorTimeout:
      return "a rank did not answer in time: see that all ranks start, reach each other and find their ports free";
    case kAclErrorStorageOverLimit:
    case kAclErrorMemoryAllocation:
      return "device memory is exhausted: lower cache_max_entry_count or num_kv_blocks";
    case kAclErrorResourceShort:
    case kAclErrorNoStreamResource:
    case kAclErrorNoEventResource:
      return "the device has no stream or event left: end other programs on it, or lower max_batch_size, which needs "
             "fewer graphs";
    case kAclErrorCollectiveTimeout:
      return "a rank did not reach a collective: look for an earlier error of another rank";
    case kAclErrorDeviceLost:
      return "the device is lost: start the process again";
    case kAclnnErrorTiling:
      return "the operator does not take these shapes: report it with this message";
    case kAclnnErrorBinaryMissing:
    case kAclnnErrorPackageMissing:
      return "install the operator package (ops) of this product and this CANN version";
    case kAclnnErrorNoOppPath:
      return "source CANN's set_env.sh";
    default:
      return "";
  }
}

}  // namespace

tm_status status_of(int code) {
  switch (code) {
    case 0:
      return TM_OK;
    case kAclErrorStorageOverLimit:
    case kAclErrorMemoryAllocation:
    case kAclErrorResourceShort:
    case kAclErrorNoEventResource:
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
  const std::string what_to_do = advice(code);
  if (!what_to_do.empty()) text += " (" + what_to_do + ")";
  throw abi::Error(status_of(code), text);
}

}  // namespace turbomind::ascend
