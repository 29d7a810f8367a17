// SPDX-License-Identifier: Apache-2.0
#include "turbomind/core/error.h"

namespace turbomind {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid argument";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kOutOfMemory:
      return "out of memory";
    case ErrorCode::kDevice:
      return "device error";
    case ErrorCode::kDeviceLost:
      return "device lost";
    case ErrorCode::kInternal:
      return "internal error";
    case ErrorCode::kPromptTooLong:
      return "prompt too long";
    case ErrorCode::kQueueFull:
      return "queue full";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kDeadlineExceeded:
      return "deadline exceeded";
  }
  return "unknown error";
}

}  // namespace turbomind
