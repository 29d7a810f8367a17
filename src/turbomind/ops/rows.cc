// SPDX-License-Identifier: Apache-2.0
#include "turbomind/ops/check.h"
#include "turbomind/ops/ops.h"

namespace turbomind {

void Ops::gather_rows(tm_gather_rows_args args) {
  const ArgumentCheck arg("gather_rows", device_);
  arg.tensor("in", args.in, args.in.dtype, {kAny, kAny});
  arg.dense("index", args.index, TM_I32, {kAny});
  arg.tensor("out", args.out, args.in.dtype, {args.index.shape[0], args.in.shape[1]});
  run(TM_OP_gather_rows, device_.plugin().op().gather_rows, args);
}

void Ops::scatter_rows(tm_scatter_rows_args args) {
  const ArgumentCheck arg("scatter_rows", device_);
  arg.tensor("in", args.in, args.in.dtype, {kAny, kAny});
  arg.dense("index", args.index, TM_I32, {args.in.shape[0]});
  arg.tensor("out", args.out, args.in.dtype, {kAny, args.in.shape[1]});
  run(TM_OP_scatter_rows, device_.plugin().op().scatter_rows, args);
}

}  // namespace turbomind
