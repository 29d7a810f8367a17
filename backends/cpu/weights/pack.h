// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/panels.h"
#include "thread_pool.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cpu {

// Fills `panels` (its data is packed_bytes / experts of writable memory) with the rows of the parts, one after the
// other.
void pack_panels(ThreadPool& pool, const tm_weight_desc& desc, const tm_weight_part* parts, int num_parts,
                 const Panels& panels);

}  // namespace turbomind::cpu
