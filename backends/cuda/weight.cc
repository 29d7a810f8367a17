// SPDX-License-Identifier: Apache-2.0
#include "weight.h"

#include <algorithm>

#include "cuda_check.h"
#include "kernels/convert.h"
#include "owned.h"
#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cuda {
namespace {

constexpr int64_t kVectorBytes = 16;
constexpr int64_t kStagingBytes = int64_t{64} << 20;

int64_t padded_cols(const tm_weight_desc& desc) {
  const int64_t unit = kVectorBytes / abi::dtype_bytes(desc.activation_dtype);
  return (desc.cols + unit - 1) / unit * unit;
}

}  // namespace

std::string unsupported_reason(const tm_weight_desc& desc) {
  if (!abi::is_dense(desc.format)) return "the cuda backend takes float32, float16 and bfloat16 weights";
  return abi::reason_against_operands(desc, "cuda");
}

size_t packed_bytes(const tm_weight_desc& desc) {
  const int64_t rows = desc.rows * std::max(desc.num_experts, 1);
  return static_cast<size_t>(rows * padded_cols(desc) * abi::dtype_bytes(desc.activation_dtype));
}

Weight::Weight(Stream& stream, const tm_weight_desc& desc, void* dst)
    : data_(dst),
      dtype_(desc.activation_dtype),
      rows_(desc.rows),
      cols_(desc.cols),
      stride_(0),
      num_experts_(desc.num_experts) {
  const std::string reason = unsupported_reason(desc);
  if (!reason.empty()) throw abi::Error(TM_UNSUPPORTED, reason);
  stride_ = padded_cols(desc);
  stream.context().set_thread();
  if (stride_ != cols_) stream.memset_async(dst, 0, packed_bytes(desc));
  auto* to = static_cast<std::byte*>(dst);
  for (int32_t i = 0; i < desc.num_parts; ++i) {
    pack_part(stream, desc.parts[i], abi::dense_dtype(desc.format), to);
    to += desc.parts[i].rows * stride_ * abi::dtype_bytes(dtype_);
  }
  stream.synchronize();
}

void Weight::pack_part(Stream& stream, const tm_weight_part& part, tm_dtype source, std::byte* to) const {
  const int64_t width = cols_ * abi::dtype_bytes(source);
  const int64_t pitch = stride_ * abi::dtype_bytes(dtype_);
  const bool converts = source != dtype_;
  const int64_t rows_at_once = converts ? std::max<int64_t>(1, kStagingBytes / width) : part.rows;
  const DeviceMemory staging = converts ? allocate_device(static_cast<size_t>(rows_at_once * width)) : DeviceMemory();
  const auto* from = static_cast<const std::byte*>(part.data);
  for (int64_t row = 0; row < part.rows; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, part.rows - row);
    check_cuda(cudaMemcpy2DAsync(converts ? staging.get() : to, static_cast<size_t>(converts ? width : pitch),
                                 from + row * part.row_stride_bytes, static_cast<size_t>(part.row_stride_bytes),
                                 static_cast<size_t>(width), static_cast<size_t>(count), cudaMemcpyHostToDevice,
                                 stream.handle()),
               "cudaMemcpy2DAsync");
    if (!converts) continue;
    launch_convert_rows(stream.handle(), {staging.get(), source, count, cols_, cols_},
                        {to + row * pitch, dtype_, stride_});
  }
  stream.synchronize();  // the staging memory goes
}

}  // namespace turbomind::cuda
