// SPDX-License-Identifier: Apache-2.0
//
// Rows of logits in pieces, so that scratch memory stays within bounds however large the vocabulary.
#pragma once

#include <algorithm>

#include "ops.h"

namespace turbomind::ascend {

inline constexpr int64_t kMaxLogits = int64_t{4} << 20;  // of one piece

// fn(first row, count) for each piece. When counting, the first, which is the largest.
template <class Fn>
void for_pieces(Launch& launch, int64_t rows, int64_t vocabulary, Fn fn) {
  const int64_t step = std::max<int64_t>(1, kMaxLogits / std::max<int64_t>(vocabulary, 1));
  for (int64_t row = 0; row < rows; row += step) {
    const Launch::Scope scope(launch);
    fn(row, std::min(step, rows - row));
    if (launch.counting()) return;
  }
}

// Elements [first, first + count) of a vector argument as a column, whatever else the argument says.
inline View column(const tm_tensor& tensor, AclType type, int64_t first, int64_t count) {
  std::byte* data = static_cast<std::byte*>(tensor.data);
  return make_view(data ? data + first * element_bytes(type) : nullptr, type, {count, 1});
}

}  // namespace turbomind::ascend
