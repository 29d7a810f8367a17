// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::ascend {

// The contract's status for a result of ACL, aclnn or HCCL.
tm_status status_of(int code);

// Throws abi::Error with that status, the call's name, the code and CANN's own words, unless the code is 0.
void check(int code, const char* call);

// Throws TM_INVALID_ARGUMENT or TM_UNSUPPORTED.
inline void require(bool condition, const char* argument, const std::string& expected) {
  if (!condition) throw abi::Error(TM_INVALID_ARGUMENT, std::string(argument) + ": expected " + expected);
}
inline void require_supported(bool condition, const std::string& reason) {
  if (!condition) throw abi::Error(TM_UNSUPPORTED, reason);
}

}  // namespace turbomind::ascend
