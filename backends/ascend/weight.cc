// SPDX-License-Identifier: Apache-2.0
#include "weight.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "check.h"
#include "half.h"
#include "library.h"
#include "quantized.h"
#include "turbomind/abi/tm_backend_tools.hpp"
#include "upload.h"

namespace turbomind::ascend {
namespace {

constexpr int64_t kFractal = 16;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The rows of a weight one after the other, whatever parts they come in.
class Source {
 public:
  explicit Source(const tm_weight_desc& desc) : dtype_(abi::dense_dtype(desc.format)), to_(desc.activation_dtype) {
    for (int32_t i = 0; i < desc.num_parts; ++i) {
      const tm_weight_part& part = desc.parts[i];
      for (int64_t row = 0; row < part.rows; ++row) {
        rows_.push_back(static_cast<const std::byte*>(part.data) + row * part.row_stride_bytes);
      }
    }
  }

  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }

  // Elements [begin, begin + count) of a row in the activations' dtype.
  void convert(int64_t row, int64_t begin, int64_t count, std::byte* to) const {
    const std::byte* from = rows_[static_cast<size_t>(row)] + begin * abi::dtype_bytes(dtype_);
    if (dtype_ == to_) {
      std::memcpy(to, from, static_cast<size_t>(count * abi::dtype_bytes(to_)));
      return;
    }
    for (int64_t i = 0; i < count; ++i)
      write_float(to + i * abi::dtype_bytes(to_), to_, read_float(from + i * abi::dtype_bytes(dtype_), dtype_));
  }

 private:
  tm_dtype dtype_;
  tm_dtype to_;
  std::vector<const std::byte*> rows_;
};

void pack_rows(Stream& stream, const Source& source, const WeightLayout& layout, void* dst) {
  const int64_t row_bytes = layout.cols * element_bytes(layout.type);
  upload(stream, dst, source.rows(), row_bytes, [&](int64_t first, int64_t some, std::byte* to) {
    for (int64_t i = 0; i < some; ++i) source.convert(first + i, 0, layout.cols, to + i * row_bytes);
  });
}

void pack_fractals(Stream& stream, const Source& source, const WeightLayout& layout, void* dst) {
  const int64_t bytes = element_bytes(layout.type);
  const int64_t bands = ceil_div(layout.cols, kFractal);  // of 16 columns each
  const int64_t band_bytes = ceil_div(layout.rows, kFractal) * kFractal * kFractal * bytes;
  upload(stream, dst, bands, band_bytes, [&](int64_t first, int64_t some, std::byte* to) {
    std::memset(to, 0, static_cast<size_t>(some * band_bytes));
    for (int64_t row = 0; row < layout.rows; ++row) {
      for (int64_t i = 0; i < some; ++i) {
        const int64_t column = (first + i) * kFractal;
        source.convert(row, column, std::min(kFractal, layout.cols - column),
                       to + i * band_bytes + row * kFractal * bytes);
      }
    }
  });
}

}  // namespace

std::string unsupported_reason(const tm_weight_desc& desc) {
  if (!abi::is_dense(desc.format) && !is_quantized(desc.format)) {
    return "the ascend backend takes float32, float16, bfloat16, int8 and int4 weights";
  }
  if (desc.num_experts > 0 && !library().op.GroupedMatmulV4.available()) return "this CANN has no aclnnGroupedMatmulV4";
  const std::string reason = abi::reason_against_operands(desc, "ascend");
  return reason.empty() && is_quantized(desc.format) ? reason_against_quantized(desc) : reason;
}

WeightLayout make_weight_layout(const Context& context, const tm_weight_desc& desc) {
  const AclType type = acl_type(desc.activation_dtype);
  WeightLayout layout{.type = type, .rows = desc.rows, .cols = desc.cols, .experts = desc.num_experts, .codes = type};
  if (is_quantized(desc.format)) {
    set_quantized_layout(desc, &layout);
    return layout;
  }
  // MatmulWeightNz takes no vectors, and rows are looked up one by one in an embedding.
  layout.nz = context.nz_weights() && library().op.MatmulWeightNz.available() && desc.num_experts == 0 &&
              !desc.is_embedding && desc.activation_dtype != TM_F32 && desc.rows > 1 && desc.cols > 1;
  int64_t elements = desc.rows * desc.cols * std::max(desc.num_experts, 1);
  if (layout.nz) {
    elements = ceil_div(desc.rows, kFractal) * ceil_div(desc.cols, kFractal) * kFractal * kFractal;
  }
  layout.bytes = static_cast<size_t>(elements * element_bytes(layout.type));
  return layout;
}

Weight::Weight(Stream& stream, const tm_weight_desc& desc, void* dst)
    : data_(dst), layout_(make_weight_layout(stream.context(), desc)) {
  const std::string reason = unsupported_reason(desc);
  if (!reason.empty()) throw abi::Error(TM_UNSUPPORTED, reason);
  stream.context().set_thread();
  if (!layout_.dense()) {
    pack_quantized(stream, desc, layout_, dst);
    return;
  }
  const Source source(desc);
  layout_.nz ? pack_fractals(stream, source, layout_, dst) : pack_rows(stream, source, layout_, dst);
}

View Weight::at(size_t offset, AclType type, int64_t rows, int64_t cols) const {
  return make_view(static_cast<std::byte*>(data_) + offset, type, {rows, cols});
}

View Weight::codes() const {
  return layout_.grouped() ? at(0, layout_.codes, layout_.cols, layout_.width)
                           : at(0, layout_.codes, layout_.rows, layout_.cols);
}

View Weight::scales() const {
  if (layout_.grouped()) return at(layout_.scales_at, layout_.type, layout_.groups(), layout_.width);
  return make_view(static_cast<std::byte*>(data_) + layout_.scales_at, kAclFloat, {layout_.rows});
}

View Weight::offsets() const { return at(layout_.offsets_at, layout_.type, layout_.groups(), layout_.width); }

View Weight::matrix() const { return make_view(data_, layout_.type, {layout_.rows, layout_.cols}); }

View Weight::transposed() const {
  if (layout_.experts > 0) {
    return make_view(data_, layout_.type, {layout_.experts, layout_.rows, layout_.cols}).permuted({0, 2, 1});
  }
  View view = matrix().permuted({1, 0});
  view.nz = layout_.nz;
  return view;
}

}  // namespace turbomind::ascend
