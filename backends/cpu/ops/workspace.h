// SPDX-License-Identifier: Apache-2.0
//
// Arrays in scratch memory, aligned to a cache line.
#pragma once

#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cpu {

using WorkspaceArena = abi::WorkspaceArena<64>;

}  // namespace turbomind::cpu
