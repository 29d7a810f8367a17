// SPDX-License-Identifier: Apache-2.0
//
// Arrays in scratch memory, aligned as cudaMalloc aligns.
#pragma once

#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cuda {

using WorkspaceArena = abi::WorkspaceArena<256>;

}  // namespace turbomind::cuda
