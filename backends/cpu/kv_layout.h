// SPDX-License-Identifier: Apache-2.0
//
// Where the bytes of a KV pool lie.
#pragma once

#include <cstddef>
#include <cstdint>

#include "turbomind/abi/tm_backend.h"

namespace turbomind::cpu {

// Bytes of a pool of num_blocks. Throws abi::Error (TM_UNSUPPORTED) for a spec this backend does not offer.
size_t kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks);

}  // namespace turbomind::cpu
