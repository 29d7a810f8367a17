// SPDX-License-Identifier: Apache-2.0
//
// Single numbers of each dtype, and dense arrays read from and written to views.
#ifndef FAKECANN_NNOP_NUMBER_H_
#define FAKECANN_NNOP_NUMBER_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "nnop/tensor.h"

namespace fakecann {

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float from_bf16(uint16_t bits) { return bits_to_float(static_cast<uint32_t>(bits) << 16); }

inline uint16_t to_bf16(float value) {
  const uint32_t bits = float_to_bits(value);
  if (std::isnan(value)) return 0x7FC0;
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// Exact by scaling: the exponent field moves from bias 15 to bias 127; subnormals come out of the multiplication.
inline float from_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = static_cast<uint32_t>(half & 0x7FFF) << 13;
  if (rest >= 0x0F800000) return bits_to_float(sign | rest | 0x7F800000);
  return bits_to_float(sign | float_to_bits(bits_to_float(rest) * 0x1p112f));
}

inline uint16_t to_f16(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return 0x7E00;
  if (magnitude >= 65520.0f) return sign | 0x7C00;
  // Adding a power of two that puts the last bit of the half at the last bit of the float rounds to nearest even.
  if (magnitude < 0x1p-14f) return sign | static_cast<uint16_t>(float_to_bits(magnitude + 0.5f) - float_to_bits(0.5f));
  const uint32_t rounded = float_to_bits(magnitude) + 0xFFF + ((float_to_bits(magnitude) >> 13) & 1);
  return sign | static_cast<uint16_t>((rounded - (112u << 23)) >> 13);
}

template <typename T>
inline T read_as(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

inline int64_t load_integer(const void* from, int dtype) {
  switch (dtype) {
    case ACL_INT8:
      return read_as<int8_t>(from);
    case ACL_UINT8:
      return read_as<uint8_t>(from);
    case ACL_BOOL:
      return read_as<uint8_t>(from) != 0;
    case ACL_INT16:
      return read_as<int16_t>(from);
    case ACL_UINT16:
      return read_as<uint16_t>(from);
    case ACL_INT32:
      return read_as<int32_t>(from);
    case ACL_UINT32:
      return read_as<uint32_t>(from);
    case ACL_INT64:
    case ACL_UINT64:
      return read_as<int64_t>(from);
    default:
      fail(kRuntimeError, std::string("not an integer: ") + name_of(dtype));
  }
}

inline double load_double(const void* from, int dtype) {
  switch (dtype) {
    case ACL_FLOAT:
      return read_as<float>(from);
    case ACL_FLOAT16:
      return from_f16(read_as<uint16_t>(from));
    case ACL_BF16:
      return from_bf16(read_as<uint16_t>(from));
    case ACL_DOUBLE:
      return read_as<double>(from);
    default:
      return static_cast<double>(load_integer(from, dtype));
  }
}

// Toward zero, and to the nearest end where the value does not fit.
inline int64_t saturate(double value, int dtype) {
  const int64_t bits = bits_of(dtype);
  const bool is_unsigned = dtype == ACL_UINT8 || dtype == ACL_UINT16 || dtype == ACL_UINT32 || dtype == ACL_UINT64;
  const double low = is_unsigned ? 0 : -std::ldexp(1.0, static_cast<int>(bits) - 1);
  const double high = std::ldexp(1.0, static_cast<int>(bits) - (is_unsigned ? 0 : 1));
  if (std::isnan(value)) return 0;
  if (value <= low) return static_cast<int64_t>(low);
  if (value >= high)
    return is_unsigned ? static_cast<int64_t>(~uint64_t{0} >> (64 - bits)) : (int64_t{1} << (bits - 1)) - 1;
  return is_unsigned ? static_cast<int64_t>(static_cast<uint64_t>(value)) : static_cast<int64_t>(value);
}

inline void store_integer(void* to, int dtype, int64_t value) {
  if (dtype == ACL_BOOL) value = value != 0;
  std::memcpy(to, &value, static_cast<size_t>(bits_of(dtype) / 8));
}

inline void store_float(void* to, int dtype, float value) {
  if (dtype == ACL_FLOAT) {
    std::memcpy(to, &value, 4);
  } else if (dtype == ACL_FLOAT16 || dtype == ACL_BF16) {
    const uint16_t bits = dtype == ACL_BF16 ? to_bf16(value) : to_f16(value);
    std::memcpy(to, &bits, 2);
  } else if (dtype == ACL_DOUBLE) {
    const double wide = value;
    std::memcpy(to, &wide, 8);
  } else if (dtype == ACL_BOOL) {
    store_integer(to, dtype, value != 0);
  } else {
    store_integer(to, dtype, saturate(value, dtype));
  }
}

}  // namespace fakecann

#endif  // FAKECANN_NNOP_NUMBER_H_
