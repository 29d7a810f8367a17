// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "turbomind/layers/shard.h"
#include "turbomind/layers/weight_source.h"

namespace turbomind {

// Throws kInvalidArgument unless the source's arrays are as long as its shape and format say.
void check_source_bytes(const WeightSource& source);

// Rows and columns of a source as a view of its memory. Throws kInvalidArgument where the format cannot be cut there:
// columns lie in blocks or share scales, and fp8_block128 rows share scales by 128.
tm_weight_part slice_weight(const WeightSource& source, Range rows, Range cols);

}  // namespace turbomind
