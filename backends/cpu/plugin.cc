// SPDX-License-Identifier: Apache-2.0
//
// The plug-in's one exported symbol.
#include "comm.h"
#include "context.h"
#include "event.h"
#include "ops.h"
#include "plan.h"
#include "stream.h"
#include "weights/weight.h"

namespace turbomind::cpu {

struct Backend {
  static constexpr const char* kName = "cpu";
  static constexpr const char* kVersion = "0.1.0";
  static std::string probe() { return {}; }
  static int32_t device_count() { return 1; }

  using Context = cpu::Context;
  using Stream = cpu::Stream;
  using Event = cpu::Event;
  using Weight = cpu::Weight;
  using Plan = cpu::Plan;
  using Comm = cpu::Comm;
  using Ops = CpuOps;
};

}  // namespace turbomind::cpu

TM_EXPORT_BACKEND(turbomind::cpu::Backend)
