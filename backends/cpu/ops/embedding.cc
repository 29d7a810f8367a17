// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ops.h"
#include "ops/tensor_args.h"
#include "weights/row.h"
#include "weights/weight.h"

namespace turbomind::cpu {

void CpuOps::embedding(Stream& stream, const tm_embedding_args& args, const tm_workspace&) {
  const int32_t* ids = vector_arg<int32_t>(args.ids, "ids");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  const Panels panels = abi::as<const Weight>(args.weight)->panels();
  require(out.cols == panels.cols, "out", std::to_string(panels.cols) + " columns, found " + std::to_string(out.cols));
  stream.pool().parallel_ranges(out.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t row = ids[token] - args.row_offset;
      if (row >= 0 && row < panels.rows) {
        read_row(panels, row, args.scale, out.row(token));
      } else {
        std::fill_n(out.row(token), out.cols, 0.0f);
      }
    }
  });
}

}  // namespace turbomind::cpu
