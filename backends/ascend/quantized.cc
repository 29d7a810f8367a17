// SPDX-License-Identifier: Apache-2.0
#include "quantized.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "half.h"
#include "library.h"
#include "turbomind/abi/tm_backend_tools.hpp"
#include "upload.h"

namespace turbomind::ascend {
namespace {

constexpr size_t kAlignment = 512;  // bytes, of codes, scales and offsets

// Bounds of WeightQuantBatchMatmulV2's public document, Atlas A2 and A3.
constexpr int64_t kGroupMultiple = 32;
constexpr int64_t kMostDim = 65535;

size_t aligned(int64_t bytes) { return (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment; }

bool is_int4(const tm_weight_desc& desc) { return desc.format == TM_WEIGHT_INT4_GROUP; }

// The columns that share a scale on the device: slices that start inside a group make it smaller.
int64_t device_group(const tm_weight_desc& desc) {
  int64_t group = desc.group_size;
  for (int32_t i = 0; desc.parts && i < desc.num_parts; ++i) {
    group = std::gcd(group, static_cast<int64_t>(desc.parts[i].scale_col_phase));
  }
  return std::min(group, desc.cols);
}

// One row of the source, whatever part it lies in.
struct SourceRow {
  const tm_weight_part* part;
  int64_t row;  // of the part

  const uint8_t* codes() const { return at(part->data, part->row_stride_bytes); }
  float scale(tm_dtype dtype, int64_t group) const {
    const uint8_t* from = at(part->scales, part->scale_stride_bytes) + group * abi::dtype_bytes(dtype);
    return read_float(reinterpret_cast<const std::byte*>(from), dtype) *
           (part->global_scale != 0 ? part->global_scale : 1.0F);
  }
  int zero(int64_t group) const { return part->zeros ? at(part->zeros, part->zero_stride_bytes)[group] : 0; }

 private:
  const uint8_t* at(const void* base, int64_t stride) const { return static_cast<const uint8_t*>(base) + row * stride; }
};

std::vector<SourceRow> source_rows(const tm_weight_desc& desc) {
  std::vector<SourceRow> rows;
  for (int32_t i = 0; i < desc.num_parts; ++i) {
    for (int64_t row = 0; row < desc.parts[i].rows; ++row) rows.push_back({&desc.parts[i], row});
  }
  return rows;
}

void pack_channels(Stream& stream, const tm_weight_desc& desc, const WeightLayout& layout, std::byte* dst) {
  const std::vector<SourceRow> rows = source_rows(desc);
  upload(stream, dst, layout.rows, layout.cols, [&](int64_t first, int64_t some, std::byte* to) {
    for (int64_t i = 0; i < some; ++i) {
      std::memcpy(to + i * layout.cols, rows[static_cast<size_t>(first + i)].codes(), static_cast<size_t>(layout.cols));
    }
  });
  upload(stream, dst + layout.scales_at, layout.rows, sizeof(float), [&](int64_t first, int64_t some, std::byte* to) {
    for (int64_t i = 0; i < some; ++i) {
      const float scale = rows[static_cast<size_t>(first + i)].scale(desc.scale_dtype, 0);
      std::memcpy(to + i * static_cast<int64_t>(sizeof scale), &scale, sizeof scale);
    }
  });
}

// Codes are turned: the operator wants them [cols, rows] where scales come in groups, unsigned ones made signed.
void pack_group_codes(Stream& stream, const tm_weight_desc& desc, const WeightLayout& layout, std::byte* dst) {
  const std::vector<SourceRow> rows = source_rows(desc);
  const bool int4 = is_int4(desc);
  const int64_t line_bytes = int4 ? layout.width / 2 : layout.width;
  upload(stream, dst, layout.cols, line_bytes, [&](int64_t first, int64_t some, std::byte* to) {
    auto* bytes = reinterpret_cast<uint8_t*>(to);
    std::memset(bytes, 0, static_cast<size_t>(some * line_bytes));
    for (int64_t row = 0; row < layout.rows; ++row) {
      const uint8_t* codes = rows[static_cast<size_t>(row)].codes();
      for (int64_t i = 0; i < some; ++i) {
        const int64_t col = first + i;
        if (int4) {
          const int code = codes[col / 2] >> (col % 2 * 4) & 0xF;
          bytes[i * line_bytes + row / 2] |= static_cast<uint8_t>((code ^ 0x8) << (row % 2 * 4));
        } else {
          bytes[i * line_bytes + row] = static_cast<uint8_t>(codes[col] ^ 0x80);
        }
      }
    }
  });
}

// value(row, group of the source) for every group of the device.
template <class Value>
void pack_group_numbers(Stream& stream, const tm_weight_desc& desc, const WeightLayout& layout, std::byte* dst,
                        Value value) {
  const std::vector<SourceRow> rows = source_rows(desc);
  const int64_t line_bytes = layout.width * element_bytes(layout.type);
  upload(stream, dst, layout.groups(), line_bytes, [&](int64_t first, int64_t some, std::byte* to) {
    std::memset(to, 0, static_cast<size_t>(some * line_bytes));
    for (int64_t row = 0; row < layout.rows; ++row) {
      const SourceRow& source = rows[static_cast<size_t>(row)];
      for (int64_t i = 0; i < some; ++i) {
        const int64_t group = (source.part->scale_col_phase + (first + i) * layout.group) / desc.group_size;
        write_float(to + i * line_bytes + row * element_bytes(layout.type), desc.activation_dtype,
                    value(source, group));
      }
    }
  });
}

}  // namespace

bool is_quantized(tm_weight_format format) {
  return format == TM_WEIGHT_INT4_GROUP || format == TM_WEIGHT_INT8_GROUP || format == TM_WEIGHT_INT8_CHANNEL;
}

std::string reason_against_quantized(const tm_weight_desc& desc) {
  const Operators& op = library().op;
  if (desc.activation_dtype == TM_F32) return "quantised products take float16 and bfloat16 activations";
  if (desc.num_experts > 0) return "quantised products of experts are not offered";
  if (desc.is_embedding) return "rows of an embedding are not looked up in quantised weights";
  if (desc.scale_dtype != TM_F32 && desc.scale_dtype != TM_F16 && desc.scale_dtype != TM_BF16) {
    return "scale_dtype: expected float32, float16 or bfloat16, found " + std::to_string(desc.scale_dtype);
  }
  // An odd number of int4 rows is stored as one more.
  if (desc.rows + (is_int4(desc) ? desc.rows % 2 : 0) > kMostDim || desc.cols > kMostDim) {
    return "more than 65535 rows or columns in a quantised weight";
  }
  if (desc.format == TM_WEIGHT_INT8_CHANNEL) {
    if (!op.QuantMatmulV5.available() && !op.QuantMatmulV4.available()) {
      return "this CANN has neither aclnnQuantMatmulV5 nor aclnnQuantMatmulV4";
    }
    return op.DynamicQuant.available() ? "" : "this CANN has no aclnnDynamicQuant";
  }
  if (!op.WeightQuantBatchMatmulV2.available()) return "this CANN has no aclnnWeightQuantBatchMatmulV2";
  const int64_t group = device_group(desc);
  if (group <= 0 || (group % kGroupMultiple != 0 && group != desc.cols)) {
    return "groups: expected multiples of 32 columns, found " + std::to_string(group);
  }
  return {};
}

void set_quantized_layout(const tm_weight_desc& desc, WeightLayout* layout) {
  if (desc.format == TM_WEIGHT_INT8_CHANNEL) {
    layout->codes = kAclInt8;
    layout->scales_at = aligned(desc.rows * desc.cols);
    layout->bytes = layout->scales_at + static_cast<size_t>(desc.rows) * sizeof(float);
    return;
  }
  layout->codes = is_int4(desc) ? kAclInt4 : kAclInt8;
  layout->group = device_group(desc);
  layout->width = is_int4(desc) ? (desc.rows + 1) / 2 * 2 : desc.rows;
  const int64_t numbers = layout->groups() * layout->width * element_bytes(layout->type);
  layout->scales_at = aligned(desc.cols * layout->width / (is_int4(desc) ? 2 : 1));
  layout->offsets_at = layout->scales_at + aligned(numbers);
  layout->bytes = layout->offsets_at + static_cast<size_t>(numbers);
}

void pack_quantized(Stream& stream, const tm_weight_desc& desc, const WeightLayout& layout, void* dst) {
  auto* to = static_cast<std::byte*>(dst);
  if (!layout.grouped()) return pack_channels(stream, desc, layout, to);
  const int half = is_int4(desc) ? 8 : 128;  // what a signed code is less than the unsigned one
  pack_group_codes(stream, desc, layout, to);
  pack_group_numbers(stream, desc, layout, to + layout.scales_at,
                     [&](const SourceRow& row, int64_t group) { return row.scale(desc.scale_dtype, group); });
  pack_group_numbers(stream, desc, layout, to + layout.offsets_at,
                     [&](const SourceRow& row, int64_t group) { return static_cast<float>(half - row.zero(group)); });
}

}  // namespace turbomind::ascend
