// SPDX-License-Identifier: Apache-2.0
#include "weights/weight.h"

#include <string>

#include "weights/format.h"
#include "weights/pack.h"

namespace turbomind::cpu {
namespace {

[[noreturn]] void reject(const std::string& message) { throw abi::Error(TM_INVALID_ARGUMENT, "weight: " + message); }

void check_part(const tm_weight_desc& desc, const tm_weight_part& part) {
  if (!part.data && part.rows > 0) reject("a part has no data");
  const auto row_bytes = static_cast<int64_t>(source_row_bytes(desc.format, desc.cols));
  if (part.row_stride_bytes < row_bytes) {
    reject("row_stride_bytes: expected at least " + std::to_string(row_bytes) + ", found " +
           std::to_string(part.row_stride_bytes));
  }
  const bool separate_scales = desc.format == TM_WEIGHT_INT4_GROUP || desc.format == TM_WEIGHT_INT8_GROUP ||
                               desc.format == TM_WEIGHT_INT8_CHANNEL;
  if (separate_scales && !part.scales) reject("a part has no scales");
  if (part.scale_col_phase % kActivationGroup != 0) {
    reject("scale_col_phase: expected a multiple of " + std::to_string(kActivationGroup) + ", found " +
           std::to_string(part.scale_col_phase));
  }
  if (!separate_scales && part.global_scale != 0.0f && part.global_scale != 1.0f) {
    reject("global_scale is for formats with separate scales");
  }
}

void check_parts(const tm_weight_desc& desc) {
  if (!desc.parts || desc.num_parts <= 0) reject("parts are missing");
  if (desc.num_experts > 0 && desc.num_parts != desc.num_experts) {
    reject("num_parts: expected num_experts (" + std::to_string(desc.num_experts) + "), found " +
           std::to_string(desc.num_parts));
  }
  int64_t rows = 0;
  for (int i = 0; i < desc.num_parts; ++i) {
    const tm_weight_part& part = desc.parts[i];
    check_part(desc, part);
    rows += part.rows;
    if (desc.num_experts > 0 && part.rows != desc.rows) reject("every expert must have the weight's rows");
  }
  if (desc.num_experts == 0 && rows != desc.rows) {
    reject("rows: expected the sum of the parts' (" + std::to_string(rows) + "), found " + std::to_string(desc.rows));
  }
}

}  // namespace

Weight::Weight(Stream& stream, const tm_weight_desc& desc, void* dst)
    : num_experts_(desc.num_experts), is_embedding_(desc.is_embedding != 0) {
  if (const std::string reason = unsupported_reason(desc); !reason.empty()) throw abi::Error(TM_UNSUPPORTED, reason);
  check_parts(desc);
  const PanelFormat format = panel_format(desc.format);
  first_ = {format, desc.rows, desc.cols, panel_bytes(format, desc.cols), static_cast<const uint8_t*>(dst)};
  matrix_bytes_ = static_cast<size_t>(first_.count()) * first_.bytes_per_panel;
  uses_int8_ = is_quantized(format) && desc.compute == TM_COMPUTE_DEFAULT;
  uses_bf16_ =
      format == PanelFormat::kBf16 && desc.compute == TM_COMPUTE_DEFAULT && stream.kernels().linear_bf16.run != nullptr;
  for (int matrix = 0; matrix < num_matrices(desc); ++matrix) {
    const bool experts = desc.num_experts > 0;
    pack_panels(stream.pool(), desc, desc.parts + (experts ? matrix : 0), experts ? 1 : desc.num_parts, panels(matrix));
  }
}

}  // namespace turbomind::cpu
