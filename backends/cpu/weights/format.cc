// SPDX-License-Identifier: Apache-2.0
#include "weights/format.h"

namespace turbomind::cpu {
namespace {

struct FormatInfo {
  PanelFormat panel;
  int block_cols;   // columns are a multiple of this
  int block_bytes;  // of a source block
};

// nullptr: not offered.
const FormatInfo* format_info(tm_weight_format format) {
  static constexpr FormatInfo kF32{PanelFormat::kF32, 1, 4};
  static constexpr FormatInfo kF16{PanelFormat::kF16, 1, 2};
  static constexpr FormatInfo kBf16{PanelFormat::kBf16, 1, 2};
  static constexpr FormatInfo kQ4_0{PanelFormat::kQ4_0, 32, 18};
  static constexpr FormatInfo kQ4_1{PanelFormat::kQ4_1, 32, 20};
  static constexpr FormatInfo kQ5_0{PanelFormat::kQ5_0, 32, 22};
  static constexpr FormatInfo kQ5_1{PanelFormat::kQ5_1, 32, 24};
  static constexpr FormatInfo kQ8_0{PanelFormat::kQ8_0, 32, 34};
  static constexpr FormatInfo kQ4_K{PanelFormat::kQ4_K, 256, 144};
  static constexpr FormatInfo kQ5_K{PanelFormat::kQ5_K, 256, 176};
  static constexpr FormatInfo kQ6_K{PanelFormat::kQ6_K, 256, 210};
  static constexpr FormatInfo kInt4Group{PanelFormat::kInt4Group, 32, 16};
  static constexpr FormatInfo kInt8Group{PanelFormat::kInt8Group, 32, 32};
  static constexpr FormatInfo kInt8Channel{PanelFormat::kInt8Channel, 1, 1};
  switch (format) {
    case TM_WEIGHT_F32:
      return &kF32;
    case TM_WEIGHT_F16:
      return &kF16;
    case TM_WEIGHT_BF16:
      return &kBf16;
    case TM_WEIGHT_GGUF_Q4_0:
      return &kQ4_0;
    case TM_WEIGHT_GGUF_Q4_1:
      return &kQ4_1;
    case TM_WEIGHT_GGUF_Q5_0:
      return &kQ5_0;
    case TM_WEIGHT_GGUF_Q5_1:
      return &kQ5_1;
    case TM_WEIGHT_GGUF_Q8_0:
      return &kQ8_0;
    case TM_WEIGHT_GGUF_Q4_K:
      return &kQ4_K;
    case TM_WEIGHT_GGUF_Q5_K:
      return &kQ5_K;
    case TM_WEIGHT_GGUF_Q6_K:
      return &kQ6_K;
    case TM_WEIGHT_INT4_GROUP:
      return &kInt4Group;
    case TM_WEIGHT_INT8_GROUP:
      return &kInt8Group;
    case TM_WEIGHT_INT8_CHANNEL:
      return &kInt8Channel;
    default:
      return nullptr;
  }
}

bool is_scale_dtype(tm_dtype dtype) { return dtype == TM_F32 || dtype == TM_F16 || dtype == TM_BF16; }

}  // namespace

std::string unsupported_reason(const tm_weight_desc& desc) {
  const FormatInfo* info = format_info(desc.format);
  if (!info)
    return "format " + std::to_string(desc.format) + " has no CPU kernel; convert it to bf16, int8 or int4 groups";
  if (desc.rows < 0 || desc.cols <= 0) return "rows must not be negative and cols must be positive";
  const bool grouped = desc.format == TM_WEIGHT_INT4_GROUP || desc.format == TM_WEIGHT_INT8_GROUP;
  const int64_t multiple = info->block_cols;
  if (grouped && (desc.group_size <= 0 || desc.group_size % kActivationGroup != 0)) {
    return "group_size: expected a multiple of " + std::to_string(kActivationGroup) + ", found " +
           std::to_string(desc.group_size);
  }
  if (desc.cols % multiple != 0) {
    return "cols: expected a multiple of " + std::to_string(multiple) + ", found " + std::to_string(desc.cols);
  }
  if ((grouped || desc.format == TM_WEIGHT_INT8_CHANNEL) && !is_scale_dtype(desc.scale_dtype)) {
    return "scale_dtype: expected f32, f16 or bf16, found " + std::to_string(desc.scale_dtype);
  }
  return {};
}

PanelFormat panel_format(tm_weight_format format) { return format_info(format)->panel; }

size_t packed_bytes(const tm_weight_desc& desc) {
  const int64_t panels = (desc.rows + kPanelRows - 1) / kPanelRows;
  return static_cast<size_t>(panels) * num_matrices(desc) * panel_bytes(panel_format(desc.format), desc.cols);
}

size_t source_row_bytes(tm_weight_format format, int64_t cols) {
  const FormatInfo* info = format_info(format);
  return static_cast<size_t>(cols) / info->block_cols * info->block_bytes;
}

}  // namespace turbomind::cpu
