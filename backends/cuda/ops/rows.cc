// SPDX-License-Identifier: Apache-2.0
#include "kernels/rows.h"

#include "ops.h"
#include "ops/tensor_args.h"
#include "weight.h"

namespace turbomind::cuda {
namespace {

void require_rows(const tm_tensor& in, const tm_tensor& out, const tm_tensor& index) {
  require(in.ndim == 1 || in.ndim == 2, "in", "1 or 2 dimensions, found " + std::to_string(in.ndim));
  require(out.ndim == in.ndim && out.dtype == in.dtype && (in.ndim == 1 || out.shape[1] == in.shape[1]), "out",
          "rows of in's kind");
  require_vector(index, TM_I32, "index");
}

}  // namespace

void CudaOps::embedding(Stream& stream, const tm_embedding_args& args, const tm_workspace&) {
  require_vector(args.ids, TM_I32, "ids");
  require_rank(args.out, 2, "out");
  const Weight& weight = *abi::as<const Weight>(args.weight);
  require(args.out.shape[1] == weight.cols(), "out",
          std::to_string(weight.cols()) + " columns, found " + std::to_string(args.out.shape[1]));
  launch_embedding(stream.handle(), args,
                   {weight.data(), weight.dtype(), weight.rows(), weight.cols(), weight.stride()});
}

void CudaOps::gather_rows(Stream& stream, const tm_gather_rows_args& args, const tm_workspace&) {
  require_rows(args.in, args.out, args.index);
  launch_gather_rows(stream.handle(), args);
}

void CudaOps::scatter_rows(Stream& stream, const tm_scatter_rows_args& args, const tm_workspace&) {
  require_rows(args.in, args.out, args.index);
  launch_scatter_rows(stream.handle(), args);
}

}  // namespace turbomind::cuda
