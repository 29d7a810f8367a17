// SPDX-License-Identifier: Apache-2.0
#include "reference/number.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace turbomind::reference {
namespace {

template <class T>
T read(const void* data, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char*>(data) + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <class T>
void write(void* data, int64_t index, T value) {
  std::memcpy(static_cast<char*>(data) + index * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

// exponent: of a normal double. Large pools are converted element by element, and ldexp would be half of that.
double power_of_two(int exponent) { return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52); }

// floor(log2(magnitude)) of a normal double; no more than -1023 for smaller ones.
int exponent_of(double magnitude) { return static_cast<int>(std::bit_cast<uint64_t>(magnitude) >> 52) - 1023; }

// Bits of a 16-bit float nearest to value, ties to even.
uint16_t encode_float16(double value, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int infinity = ((1 << exponent_bits) - 1) << mantissa_bits;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(infinity | 1 << (mantissa_bits - 1));
  if (std::isinf(value)) return static_cast<uint16_t>(sign | infinity);
  if (magnitude == 0) return sign;
  // Units of the last place; below the smallest normal they stop shrinking.
  const int exponent = std::max(exponent_of(magnitude), 1 - bias);
  const double units = std::nearbyint(magnitude * power_of_two(mantissa_bits - exponent));
  // A mantissa that rounds up to the next power of two carries into the exponent by itself.
  const double bits = units + (exponent + bias - 1) * power_of_two(mantissa_bits);
  return static_cast<uint16_t>(sign | static_cast<int>(std::min<double>(bits, infinity)));
}

template <class T>
void store_integer(void* data, int64_t index, double value) {
  const double low = static_cast<double>(std::numeric_limits<T>::min());
  const double high = static_cast<double>(std::numeric_limits<T>::max());
  if (value >= high) return write(data, index, std::numeric_limits<T>::max());
  if (value <= low) return write(data, index, std::numeric_limits<T>::min());
  write(data, index, static_cast<T>(std::nearbyint(value)));
}

}  // namespace

double decode_float(uint32_t bits, int exponent_bits, int mantissa_bits, bool ieee) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = static_cast<int>(bits) & ((1 << mantissa_bits) - 1);
  const double sign = bits >> (exponent_bits + mantissa_bits) & 1 ? -1.0 : 1.0;
  if (ieee && exponent == (1 << exponent_bits) - 1) {
    return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * mantissa * power_of_two(1 - bias - mantissa_bits);
  return sign * (mantissa + (1 << mantissa_bits)) * power_of_two(exponent - bias - mantissa_bits);
}

double load(tm_dtype dtype, const void* data, int64_t index) {
  switch (dtype) {
    case TM_F32:
      return read<float>(data, index);
    case TM_F16:
      return decode_float(read<uint16_t>(data, index), 5, 10, true);
    case TM_BF16:
      return decode_float(read<uint16_t>(data, index), 8, 7, true);
    case TM_I8:
      return read<int8_t>(data, index);
    case TM_U8:
      return read<uint8_t>(data, index);
    case TM_I32:
      return read<int32_t>(data, index);
    case TM_U32:
      return read<uint32_t>(data, index);
    case TM_I64:
      return static_cast<double>(read<int64_t>(data, index));
    case TM_U64:
      return static_cast<double>(read<uint64_t>(data, index));
    default:
      throw std::invalid_argument("reference::load: dtype without values");
  }
}

void store(tm_dtype dtype, void* data, int64_t index, double value) {
  switch (dtype) {
    case TM_F32:
      return write(data, index, static_cast<float>(value));
    case TM_F16:
      return write(data, index, encode_float16(value, 5, 10));
    case TM_BF16:
      return write(data, index, encode_float16(value, 8, 7));
    case TM_I8:
      return store_integer<int8_t>(data, index, value);
    case TM_U8:
      return store_integer<uint8_t>(data, index, value);
    case TM_I32:
      return store_integer<int32_t>(data, index, value);
    case TM_U32:
      return store_integer<uint32_t>(data, index, value);
    case TM_I64:
      return store_integer<int64_t>(data, index, value);
    case TM_U64:
      return store_integer<uint64_t>(data, index, value);
    default:
      throw std::invalid_argument("reference::store: dtype without values");
  }
}

double round_to(tm_dtype dtype, double value) {
  uint64_t bits = 0;
  store(dtype, &bits, 0, value);
  return load(dtype, &bits, 0);
}

}  // namespace turbomind::reference
