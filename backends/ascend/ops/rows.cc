// SPDX-License-Identifier: Apache-2.0
#include "ops.h"

namespace turbomind::ascend {

// Ids outside the shard look up some row of it, which is then zeroed.
void compose(Launch& launch, const tm_embedding_args& args) {
  const Operators& op = library().op;
  const int64_t tokens = args.ids.shape[0];
  if (tokens == 0) return;
  require(args.weight != nullptr, "weight", "a weight");
  const Weight& weight = *abi::as<const Weight>(args.weight);
  const View out = make_view(args.out);
  require(out.type == weight.layout().type, "out", "the weight's dtype");
  require(out.dim(1) == weight.layout().cols, "out", std::to_string(weight.layout().cols) + " columns");
  const View local = launch.take(kAclInt32, {tokens});
  const View safe = launch.take(kAclInt32, {tokens});
  const View inside = launch.take(kAclBool, {tokens, 1});
  const View outside = launch.take(kAclBool, {tokens, 1});
  const View found = launch.take(out.type, {tokens, out.dim(1)});
  launch(op.Adds, make_view(args.ids), Number{static_cast<double>(-args.row_offset), kAclInt32}, Number{1, kAclInt32},
         local);
  launch(op.Clamp, local, Number{0, kAclInt32}, Number{static_cast<double>(weight.layout().rows - 1), kAclInt32}, safe);
  launch(op.EqTensor, local.unsqueezed(1), safe.unsqueezed(1), inside);
  launch(op.LogicalNot, inside, outside);
  launch(op.IndexSelect, weight.matrix(), int64_t{0}, safe, found);
  if (args.scale != 1) launch(op.Muls, found, Number{args.scale}, found);
  launch(op.InplaceMaskedFillScalar, found, outside, Number{0});
  launch.copy(out, found);
}

void compose(Launch& launch, const tm_gather_rows_args& args) {
  const Operators& op = library().op;
  const int64_t picked = args.index.shape[0];
  const int64_t cols = args.in.shape[1];
  if (picked == 0 || args.in.shape[0] == 0) return;
  const View in = bits_view(args.in);
  const View out = bits_view(args.out);
  const View index = make_view(args.index);
  const View none = launch.take(kAclBool, {picked, 1});
  const View safe = launch.take(kAclInt32, {picked});
  const View found = launch.take(in.type, {picked, cols});
  launch(op.LtScalar, index.unsqueezed(1), Number{0, kAclInt32}, none);
  launch(op.Clamp, index, Number{0, kAclInt32}, Number{static_cast<double>(args.in.shape[0] - 1), kAclInt32}, safe);
  launch(op.IndexSelect, in, int64_t{0}, safe, found);
  launch(op.SWhere, none, out, found, found);
  launch.copy(out, found);
}

// Rows that go nowhere go to places of their own past the table's end.
void compose(Launch& launch, const tm_scatter_rows_args& args) {
  const Operators& op = library().op;
  const int64_t count = args.index.shape[0];
  const int64_t rows = args.out.shape[0];
  const int64_t cols = args.in.shape[1];
  if (count == 0) return;
  const View in = bits_view(args.in);
  const View out = bits_view(args.out);
  const View index = make_view(args.index);
  const View none = launch.take(kAclBool, {count});
  const View beyond = launch.take(kAclInt32, {count});
  const View target = launch.take(kAclInt32, {count});
  const View table = launch.take(out.type, {rows + count, cols});
  launch(op.LtScalar, index, Number{0, kAclInt32}, none);
  launch(op.Arange, Number{static_cast<double>(rows), kAclInt32}, Number{static_cast<double>(rows + count), kAclInt32},
         Number{1, kAclInt32}, beyond);
  launch(op.SWhere, none, beyond, index, target);
  launch.copy(table.slice(0, 0, rows), out);
  // The operator documents no int16 and int32; floats of the same size carry the bits.
  const AclType bits = out.type == kAclInt16 ? kAclFloat16 : out.type == kAclInt32 ? kAclFloat : out.type;
  launch(op.ScatterNdUpdate, table.as(bits), target.unsqueezed(1), contiguous_copy(launch, in).as(bits));
  launch.copy(out, table.slice(0, 0, rows));
}

}  // namespace turbomind::ascend
