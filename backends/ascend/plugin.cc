// SPDX-License-Identifier: Apache-2.0
//
// The plug-in's one exported symbol.
#include "comm.h"
#include "ops.h"

namespace turbomind::ascend {

struct Backend {
  static constexpr const char* kName = "ascend";
  static constexpr const char* kVersion = "0.1.0";
  static std::string probe() {
    if (!library().reason.empty()) return library().reason;
    return count_devices() > 0 ? std::string() : "no Ascend device";
  }
  static int32_t device_count() { return count_devices(); }

  using Context = ascend::Context;
  using Stream = ascend::Stream;
  using Event = ascend::Event;
  using Weight = ascend::Weight;
  using Plan = ascend::Plan;
  using Graph = ascend::Graph;
  using Comm = ascend::Comm;
  using Ops = AscendOps;
};

}  // namespace turbomind::ascend

TM_EXPORT_BACKEND(turbomind::ascend::Backend)
