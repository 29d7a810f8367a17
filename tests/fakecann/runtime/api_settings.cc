// SPDX-License-Identifier: Apache-2.0
//
// Exported functions: settings that clients write and read back. The emulator's arithmetic is deterministic and does
// not saturate whatever they say.
#include <map>

#include "abi/runtime.h"
#include "runtime/stream.h"

namespace fakecann {
namespace {

std::map<int, int64_t>& parameters() {
  static auto* values = new std::map<int, int64_t>;
  return *values;
}

int saturation_mode = 1;

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

aclError aclrtSetSysParamOpt(int option, int64_t value) {
  return guarded(__func__, [&] { parameters()[option] = value; });
}

aclError aclrtGetSysParamOpt(int option, int64_t* value) {
  return guarded(__func__, [&] {
    if (value == nullptr) fail(kInvalidParameter, "null argument");
    *value = parameters()[option];
  });
}

aclError aclrtCtxSetSysParamOpt(int option, int64_t value) { return aclrtSetSysParamOpt(option, value); }

aclError aclrtSetDeviceSatMode(int mode) {
  return guarded(__func__, [&] {
    if (mode != 0 && mode != 1) fail(kInvalidParameter, "no such saturation mode");
    saturation_mode = mode;
  });
}

aclError aclrtGetDeviceSatMode(int* mode) {
  return guarded(__func__, [&] { *mode = saturation_mode; });
}

aclError aclrtSetStreamOverflowSwitch(aclrtStream stream, uint32_t flag) {
  return guarded(__func__, [&] {
    if (flag > 1) fail(kInvalidParameter, "the switch is 0 or 1");
    find_stream(stream);
  });
}

aclError aclrtGetPrimaryCtxState(int32_t device, uint32_t* flags, int32_t* is_active) {
  return guarded(__func__, [&] {
    *is_active = Streams::instance().primary.count(device) != 0 ? 1 : 0;
    if (flags != nullptr) *flags = 0;
  });
}
