// SPDX-License-Identifier: Apache-2.0
#include "weight.h"

#include <algorithm>

#include "cuda_check.h"

namespace turbomind::cuda {
namespace {

bool is_dense(tm_weight_format format) {
  return format == TM_WEIGHT_F32 || format == TM_WEIGHT_F16 || format == TM_WEIGHT_BF16;
}

size_t element_bytes(tm_weight_format format) { return format == TM_WEIGHT_F32 ? 4 : 2; }

}  // namespace

std::string unsupported_reason(const tm_weight_desc& desc) {
  if (!is_dense(desc.format)) return "the cuda backend takes float32, float16 and bfloat16 weights";
  if (desc.rows <= 0 || desc.cols <= 0) return "an empty matrix";
  return {};
}

size_t packed_bytes(const tm_weight_desc& desc) {
  const auto elements = static_cast<size_t>(desc.rows) * static_cast<size_t>(desc.cols);
  return elements * element_bytes(desc.format) * static_cast<size_t>(std::max(desc.num_experts, 1));
}

Weight::Weight(Stream& stream, const tm_weight_desc& desc, void* dst)
    : data_(dst),
      dtype_(desc.format == TM_WEIGHT_F32   ? TM_F32
             : desc.format == TM_WEIGHT_F16 ? TM_F16
                                            : TM_BF16),
      rows_(desc.rows),
      cols_(desc.cols),
      num_experts_(desc.num_experts) {
  const std::string reason = unsupported_reason(desc);
  if (!reason.empty()) throw abi::Error(TM_UNSUPPORTED, reason);
  const size_t row_bytes = static_cast<size_t>(cols_) * element_bytes(desc.format);
  auto* to = static_cast<std::byte*>(dst);
  for (int32_t i = 0; i < desc.num_parts; ++i) {
    const tm_weight_part& part = desc.parts[i];
    check_cuda(cudaMemcpy2DAsync(to, row_bytes, part.data, static_cast<size_t>(part.row_stride_bytes), row_bytes,
                                 static_cast<size_t>(part.rows), cudaMemcpyHostToDevice, stream.handle()),
               "cudaMemcpy2DAsync");
    to += row_bytes * static_cast<size_t>(part.rows);
  }
  stream.synchronize();
}

}  // namespace turbomind::cuda
