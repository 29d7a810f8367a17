// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "stream.h"

namespace turbomind::ascend {

// Fills device memory with `count` pieces of piece_bytes each, one behind the other, through two pinned buffers: one is
// filled while the other is being copied. fill(first, some, to) writes the pieces first, first + 1, ... of them. The
// copies are done on return.
void upload(Stream& stream, void* dst, int64_t count, int64_t piece_bytes,
            const std::function<void(int64_t first, int64_t some, std::byte* to)>& fill);

}  // namespace turbomind::ascend
