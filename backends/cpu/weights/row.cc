// SPDX-License-Identifier: Apache-2.0
#include "weights/row.h"

#include <algorithm>
#include <cstring>

#include "dtype.h"

namespace turbomind::cpu {
namespace {

// Inverse of put_codes in pack.cc: the codes of one row and group.
void read_codes(const PanelGeometry& geometry, const uint8_t* vectors, int lane, uint8_t* codes) {
  const auto byte = [&](int vector, int j) { return vectors[vector * kVectorBytes + lane * kQuad + j]; };
  const int quads = geometry.group_k / kQuad;
  for (int quad = 0; quad < quads; ++quad) {
    for (int j = 0; j < kQuad; ++j) {
      if (geometry.code_bits == 8) {
        codes[quad * kQuad + j] = byte(quad, j);
        continue;
      }
      const int half = quads / 2;
      const int nibble = quad < half ? byte(quad, j) & 0x0f : byte(quad - half, j) >> 4;
      const int plane_bits = geometry.code_bits - 4;
      const int high = plane_bits == 0 ? 0 : (byte(half, j) >> (plane_bits * quad)) & ((1 << plane_bits) - 1);
      codes[quad * kQuad + j] = static_cast<uint8_t>(nibble | (high << 4));
    }
  }
}

template <class T>
T get(const uint8_t* base, int64_t index) {
  T value;
  std::memcpy(&value, base + static_cast<size_t>(index) * sizeof(T), sizeof value);
  return value;
}

struct Affine {
  float scale;
  float minimum;  // added after scaling
  float offset;   // subtracted before
};

Affine group_affine(const PanelGeometry& geometry, const uint8_t* block, int group, int lane) {
  const auto half = [&](int index) { return to_float(get<F16>(block, index * kPanelRows + lane)); };
  const float offset = static_cast<float>(geometry.offset);
  switch (geometry.scales) {
    case ScaleLayout::kNone:
      break;
    case ScaleLayout::kScale:
      return {half(group), 0.0f, offset};
    case ScaleLayout::kScaleMin:
      return {half(2 * group), half(2 * group + 1), 0.0f};
    case ScaleLayout::kSuperMin: {
      const uint8_t* scales = block + 4 * kPanelRows + 2 * group * kPanelRows + lane;
      return {half(0) * scales[0], -(half(1) * scales[kPanelRows]), 0.0f};
    }
    case ScaleLayout::kSuperScale:
      return {half(0) * get<int8_t>(block + 2 * kPanelRows, group * kPanelRows + lane), 0.0f, offset};
    case ScaleLayout::kScaleZero: {
      const uint8_t* zeros = block + geometry.groups_per_block * kPanelRows * sizeof(float);
      return {get<float>(block, group * kPanelRows + lane), 0.0f,
              static_cast<float>(get<uint8_t>(zeros, group * kPanelRows + lane))};
    }
  }
  return {1.0f, 0.0f, offset};
}

void read_quantized_row(const Panels& panels, const uint8_t* panel, int lane, float* out) {
  const PanelGeometry geometry = panel_geometry(panels.format);
  const uint8_t* block = panel + geometry.header_bytes;
  for (int64_t k0 = 0; k0 < panels.cols; k0 += geometry.block_k(), block += geometry.block_bytes()) {
    for (int group = 0; group < geometry.groups_per_block; ++group) {
      const int64_t k = k0 + group * geometry.group_k;
      if (k >= panels.cols) break;
      uint8_t codes[kActivationGroup];
      read_codes(geometry, block + geometry.scale_bytes + group * geometry.group_code_bytes(), lane, codes);
      const Affine affine = group_affine(geometry, block, group, lane);
      const int64_t count = std::min<int64_t>(geometry.group_k, panels.cols - k);
      for (int64_t i = 0; i < count; ++i) {
        out[k + i] = affine.scale * (static_cast<float>(codes[i]) - affine.offset) + affine.minimum;
      }
    }
  }
  if (geometry.scales == ScaleLayout::kNone) {
    const float scale = get<float>(panel, lane);
    for (int64_t k = 0; k < panels.cols; ++k) out[k] *= scale;
  }
}

// value(k): the row's element.
template <class Fn>
void read_float_row(int64_t cols, float* out, Fn&& value) {
  for (int64_t k = 0; k < cols; ++k) out[k] = value(k);
}

}  // namespace

void read_row(const Panels& panels, int64_t row, float scale, float* out) {
  const uint8_t* panel = panels.panel(row / kPanelRows);
  const int lane = static_cast<int>(row % kPanelRows);
  switch (panels.format) {
    case PanelFormat::kF32:
      read_float_row(panels.cols, out, [&](int64_t k) { return get<float>(panel, k * kPanelRows + lane); });
      break;
    case PanelFormat::kF16:
      read_float_row(panels.cols, out, [&](int64_t k) { return to_float(get<F16>(panel, k * kPanelRows + lane)); });
      break;
    case PanelFormat::kBf16:
      read_float_row(panels.cols, out,
                     [&](int64_t k) { return to_float(get<Bf16>(panel, (k / 2 * kPanelRows + lane) * 2 + k % 2)); });
      break;
    default:
      read_quantized_row(panels, panel, lane, out);
  }
  if (scale != 1.0f) {
    for (int64_t k = 0; k < panels.cols; ++k) out[k] *= scale;
  }
}

}  // namespace turbomind::cpu
