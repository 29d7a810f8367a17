// SPDX-License-Identifier: Apache-2.0
#include "reference/weights.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

namespace turbomind::reference {
namespace {

double half_at(const uint8_t* bytes) { return load(TM_F16, bytes, 0); }

// GGUF block of 32 with a 4- or 5-bit code per element: d, [m], [32 high bits], 16 bytes of nibbles.
double block32_value(const uint8_t* block, int i, int bits, bool has_min) {
  const double d = half_at(block);
  const uint8_t* at = block + 2;
  double m = -d * (1 << (bits - 1));
  if (has_min) {
    m = half_at(at);
    at += 2;
  }
  int code = 0;
  if (bits == 5) {
    code = (at[i / 8] >> (i % 8) & 1) << 4;
    at += 4;
  }
  code |= i < 16 ? at[i] & 0xF : at[i - 16] >> 4;
  return d * code + m;
}

// The 6-bit scale and minimum of sub-block j in the 12 packed bytes of a K block.
void k_scale_and_min(const uint8_t* packed, int j, int* scale, int* minimum) {
  if (j < 4) {
    *scale = packed[j] & 0x3F;
    *minimum = packed[j + 4] & 0x3F;
  } else {
    *scale = (packed[j + 4] & 0xF) + 16 * (packed[j - 4] >> 6);
    *minimum = (packed[j + 4] >> 4) + 16 * (packed[j] >> 6);
  }
}

double k_value(const uint8_t* block, int i, int bits) {
  const int sub_block = i / 32;
  int scale;
  int minimum;
  k_scale_and_min(block + 4, sub_block, &scale, &minimum);
  const uint8_t* nibbles = block + (bits == 5 ? 48 : 16);
  const uint8_t pair = nibbles[i / 64 * 32 + i % 32];
  int code = sub_block % 2 == 0 ? pair & 0xF : pair >> 4;
  if (bits == 5 && (block[16 + i % 32] >> sub_block & 1)) code += 16;
  return half_at(block) * scale * code - half_at(block + 2) * minimum;
}

double q6_k_value(const uint8_t* block, int i) {
  const int half = i >= 128;
  const int within = i % 128;
  const uint8_t low_byte = block[64 * half + within % 64];
  const int low = within < 64 ? low_byte & 0xF : low_byte >> 4;
  const int high = block[128 + 32 * half + within % 32] >> (within / 32 * 2) & 3;
  const auto scale = static_cast<int8_t>(block[192 + i / 16]);
  return half_at(block + 208) * scale * (low + 16 * high - 32);
}

struct BlockShape {
  int elements;
  int bytes;
};

BlockShape block_shape(tm_weight_format format) {
  switch (format) {
    case TM_WEIGHT_F32:
      return {1, 4};
    case TM_WEIGHT_F16:
    case TM_WEIGHT_BF16:
      return {1, 2};
    case TM_WEIGHT_GGUF_Q4_0:
      return {32, 18};
    case TM_WEIGHT_GGUF_Q4_1:
      return {32, 20};
    case TM_WEIGHT_GGUF_Q5_0:
      return {32, 22};
    case TM_WEIGHT_GGUF_Q5_1:
      return {32, 24};
    case TM_WEIGHT_GGUF_Q8_0:
      return {32, 34};
    case TM_WEIGHT_GGUF_Q4_K:
      return {256, 144};
    case TM_WEIGHT_GGUF_Q5_K:
      return {256, 176};
    case TM_WEIGHT_GGUF_Q6_K:
      return {256, 210};
    case TM_WEIGHT_INT4_GROUP:
    case TM_WEIGHT_MXFP4:
      return {2, 1};
    default:
      return {1, 1};
  }
}

double e2m1_value(int code) { return decode_float(static_cast<uint32_t>(code), 2, 1, false); }

double separate_scale(const RawWeight& w, int64_t row, int64_t col) {
  const uint8_t* scales = w.scales.data();
  switch (w.format) {
    case TM_WEIGHT_INT4_GROUP:
    case TM_WEIGHT_INT8_GROUP:
      return load(w.scale_dtype, scales + row * w.scale_row_bytes, col / w.group_size);
    case TM_WEIGHT_INT8_CHANNEL:
    case TM_WEIGHT_FP8_CHANNEL:
      return load(w.scale_dtype, scales + row * w.scale_row_bytes, 0);
    case TM_WEIGHT_FP8_TENSOR:
      return load(w.scale_dtype, scales, 0);
    case TM_WEIGHT_FP8_BLOCK128:
      return load(w.scale_dtype, scales + row / 128 * w.scale_row_bytes, col / 128);
    case TM_WEIGHT_MXFP4:
      return std::ldexp(1.0, scales[row * w.scale_row_bytes + col / 32] - 127);
    default:
      throw std::invalid_argument("weight format without separate scales");
  }
}

double separate_code(const RawWeight& w, int64_t row, int64_t col) {
  const uint8_t* codes = w.codes.data() + row * w.row_bytes;
  const auto nibble = [&] { return col % 2 ? codes[col / 2] >> 4 : codes[col / 2] & 0xF; };
  const auto zero = [&] { return w.zeros[static_cast<size_t>(row * w.zero_row_bytes + col / w.group_size)]; };
  switch (w.format) {
    case TM_WEIGHT_INT4_GROUP:
      return nibble() - zero();
    case TM_WEIGHT_INT8_GROUP:
      return codes[col] - zero();
    case TM_WEIGHT_INT8_CHANNEL:
      return static_cast<int8_t>(codes[col]);
    case TM_WEIGHT_MXFP4:
      return e2m1_value(nibble());
    default:
      return decode_float(codes[col], 4, 3, false);
  }
}

// Standard normal by the Box-Muller transform.
double normal(const std::function<uint64_t()>& random) {
  const double u = (static_cast<double>(random() >> 11) + 1.0) * 0x1p-53;
  const double v = static_cast<double>(random() >> 11) * 0x1p-53;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
}

void store_half(uint8_t* at, double value) { store(TM_F16, at, 0, value); }

// Scales such that random codes give values of standard deviation about sigma.
void set_block_scales(tm_weight_format format, uint8_t* block, double sigma, double jitter) {
  switch (format) {
    case TM_WEIGHT_GGUF_Q4_0:
      return store_half(block, jitter * sigma / 4.6);
    case TM_WEIGHT_GGUF_Q4_1:
      store_half(block, jitter * sigma / 4.6);
      return store_half(block + 2, -7.5 * jitter * sigma / 4.6);
    case TM_WEIGHT_GGUF_Q5_0:
      return store_half(block, jitter * sigma / 9.2);
    case TM_WEIGHT_GGUF_Q5_1:
      store_half(block, jitter * sigma / 9.2);
      return store_half(block + 2, -15.5 * jitter * sigma / 9.2);
    case TM_WEIGHT_GGUF_Q8_0:
      return store_half(block, jitter * sigma / 74);
    case TM_WEIGHT_GGUF_Q4_K:
      store_half(block, jitter * sigma / (32 * 4.6));
      return store_half(block + 2, 7.5 * jitter * sigma / (32 * 4.6));
    case TM_WEIGHT_GGUF_Q5_K:
      store_half(block, jitter * sigma / (32 * 9.2));
      return store_half(block + 2, 15.5 * jitter * sigma / (32 * 9.2));
    default:  // q6_k
      return store_half(block + 208, jitter * sigma / (74 * 18.5));
  }
}

void fill_floats(RawWeight& w, double sigma, const std::function<uint64_t()>& random) {
  const tm_dtype dtype = w.format == TM_WEIGHT_F32 ? TM_F32 : w.format == TM_WEIGHT_F16 ? TM_F16 : TM_BF16;
  for (int64_t i = 0; i < w.rows * w.cols; ++i) store(dtype, w.codes.data(), i, sigma * normal(random));
}

void fill_scales(RawWeight& w, double sigma, const std::function<uint64_t()>& random) {
  const bool fp8 = w.format >= TM_WEIGHT_FP8_TENSOR && w.format <= TM_WEIGHT_FP8_BLOCK128;
  int64_t per_row = 1;
  int64_t scale_rows = w.rows;
  double code_sigma = 74;
  if (w.format == TM_WEIGHT_INT4_GROUP) code_sigma = 4.6;
  if (fp8) code_sigma = 100;
  if (w.format == TM_WEIGHT_INT4_GROUP || w.format == TM_WEIGHT_INT8_GROUP) {
    w.group_size = w.cols % 128 == 0 ? 128 : 32;
    per_row = w.cols / w.group_size;
    w.zero_row_bytes = per_row;
    w.zeros.resize(static_cast<size_t>(w.rows * per_row));
    const int middle = w.format == TM_WEIGHT_INT4_GROUP ? 7 : 127;
    for (uint8_t& zero : w.zeros) zero = static_cast<uint8_t>(middle + random() % 3);
  }
  if (w.format == TM_WEIGHT_FP8_TENSOR) scale_rows = 1;
  if (w.format == TM_WEIGHT_FP8_BLOCK128) {
    scale_rows = (w.rows + 127) / 128;
    per_row = (w.cols + 127) / 128;
  }
  w.scale_row_bytes = per_row * 4;
  w.scales.resize(static_cast<size_t>(scale_rows * per_row * 4));
  for (int64_t i = 0; i < scale_rows * per_row; ++i) {
    const double jitter = 0.75 + static_cast<double>(random() % 1024) / 2048;
    store(TM_F32, w.scales.data(), i, jitter * sigma / code_sigma);
  }
  for (uint8_t& code : w.codes) {
    if (fp8 && (code & 0x7F) == 0x7F) code ^= 1;  // no NaN
  }
}

void fill_microscaling(RawWeight& w, double sigma, const std::function<uint64_t()>& random) {
  w.scale_dtype = TM_U8;
  w.scale_row_bytes = w.cols / 32;
  w.scales.resize(static_cast<size_t>(w.rows * w.scale_row_bytes));
  const int exponent = 127 + std::ilogb(sigma / 3);
  for (uint8_t& scale : w.scales) scale = static_cast<uint8_t>(exponent + static_cast<int>(random() % 2));
}

}  // namespace

FormatShape format_shape(tm_weight_format format) {
  const BlockShape shape = block_shape(format);
  const bool grouped = format == TM_WEIGHT_INT4_GROUP || format == TM_WEIGHT_INT8_GROUP || format == TM_WEIGHT_MXFP4;
  return {shape.elements, shape.bytes, grouped ? 32 : shape.elements};
}

RawWeight make_weight(tm_weight_format format, int64_t rows, int64_t cols, const std::function<uint64_t()>& random) {
  const BlockShape shape = block_shape(format);
  RawWeight w{.format = format, .rows = rows, .cols = cols, .row_bytes = cols / shape.elements * shape.bytes};
  w.codes.resize(static_cast<size_t>(rows * w.row_bytes));
  for (uint8_t& byte : w.codes) byte = static_cast<uint8_t>(random() >> 32);
  const double sigma = 1 / std::sqrt(static_cast<double>(cols));
  if (format <= TM_WEIGHT_BF16) {
    fill_floats(w, sigma, random);
  } else if (format <= TM_WEIGHT_GGUF_Q6_K) {
    for (size_t at = 0; at < w.codes.size(); at += static_cast<size_t>(shape.bytes)) {
      set_block_scales(format, w.codes.data() + at, sigma, 0.75 + static_cast<double>(random() % 1024) / 2048);
    }
  } else if (format == TM_WEIGHT_MXFP4) {
    fill_microscaling(w, sigma, random);
  } else {
    fill_scales(w, sigma, random);
  }
  return w;
}

double weight_value(const RawWeight& w, int64_t row, int64_t col) {
  const BlockShape shape = block_shape(w.format);
  const uint8_t* codes = w.codes.data() + row * w.row_bytes;
  const uint8_t* block = codes + col / shape.elements * shape.bytes;
  const int i = static_cast<int>(col % shape.elements);
  switch (w.format) {
    case TM_WEIGHT_F32:
      return load(TM_F32, codes, col);
    case TM_WEIGHT_F16:
      return load(TM_F16, codes, col);
    case TM_WEIGHT_BF16:
      return load(TM_BF16, codes, col);
    case TM_WEIGHT_GGUF_Q4_0:
      return block32_value(block, i, 4, false);
    case TM_WEIGHT_GGUF_Q4_1:
      return block32_value(block, i, 4, true);
    case TM_WEIGHT_GGUF_Q5_0:
      return block32_value(block, i, 5, false);
    case TM_WEIGHT_GGUF_Q5_1:
      return block32_value(block, i, 5, true);
    case TM_WEIGHT_GGUF_Q8_0:
      return half_at(block) * static_cast<int8_t>(block[2 + i]);
    case TM_WEIGHT_GGUF_Q4_K:
      return k_value(block, i, 4);
    case TM_WEIGHT_GGUF_Q5_K:
      return k_value(block, i, 5);
    case TM_WEIGHT_GGUF_Q6_K:
      return q6_k_value(block, i);
    default:
      return separate_code(w, row, col) * separate_scale(w, row, col);
  }
}

}  // namespace turbomind::reference
