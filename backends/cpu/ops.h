// SPDX-License-Identifier: Apache-2.0
//
// Every op this backend offers; an op that is not declared here becomes a NULL slot. An op that needs scratch memory
// declares <op>_workspace(context, args) beside it.
#pragma once

#include "stream.h"

namespace turbomind::cpu {

struct CpuOps {
  // ops/embedding.cc
  // ops/linear.cc
};

}  // namespace turbomind::cpu
