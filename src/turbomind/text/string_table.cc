// SPDX-License-Identifier: Apache-2.0
#include "turbomind/text/string_table.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

constexpr size_t kLengthBytes = 8;

// Reads the length at an offset. The file is little-endian, as every supported host.
uint64_t length_at(std::span<const uint8_t> data, size_t offset) {
  uint64_t length = 0;
  std::memcpy(&length, data.data() + offset, kLengthBytes);
  return length;
}

// Bytes of the character at the front, or 0 if no well-formed one begins there (Unicode 15, table 3-7).
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t bytes = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (bytes == 0 || text.size() < bytes) return 0;
  // Neither overlong forms nor surrogates nor anything above U+10FFFF: the second byte tells.
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  return bytes;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = character_bytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

size_t slot_of(std::string_view text, size_t slots) { return std::hash<std::string_view>()(text) & (slots - 1); }

}  // namespace

StringExtent measure_strings(std::span<const uint8_t> data, size_t count) {
  StringExtent found;
  while (found.strings < count) {
    const size_t left = data.size() - found.bytes;
    if (left < kLengthBytes) break;
    const uint64_t length = length_at(data, found.bytes);
    if (length > left - kLengthBytes) break;
    found.bytes += kLengthBytes + length;
    ++found.strings;
  }
  return found;
}

StringTable::StringTable(std::span<const uint8_t> data, size_t count) {
  const StringExtent extent = measure_strings(data, count);
  check(extent.strings == count, ErrorCode::kInvalidArgument, "strings: expected ", count, ", found ", extent.strings);
  const size_t text_bytes = extent.bytes - count * kLengthBytes;
  check(count <= std::numeric_limits<int32_t>::max() && text_bytes <= std::numeric_limits<uint32_t>::max(),
        ErrorCode::kInvalidArgument, "strings: expected at most 2^31 of 2^32 bytes, found ", count, " of ", text_bytes);
  text_.reserve(text_bytes);
  ends_.reserve(count);
  for (size_t offset = 0; offset < extent.bytes;) {
    const auto length = static_cast<size_t>(length_at(data, offset));
    const auto* begin = reinterpret_cast<const char*>(data.data() + offset + kLengthBytes);
    const std::string_view text(begin, length);
    check(is_utf8(text), ErrorCode::kInvalidArgument, "string ", ends_.size(), ": expected UTF-8, found other bytes");
    text_ += text;
    ends_.push_back(static_cast<uint32_t>(text_.size()));
    longest_ = std::max(longest_, length);
    offset += kLengthBytes + length;
  }
}

int32_t StringTable::find(std::string_view text) const {
  if (text.size() > longest_ || size() == 0) return kNone;
  std::call_once(index_made_, [this] { build_index(); });
  const size_t slots = index_.size();
  for (size_t slot = slot_of(text, slots);; slot = (slot + 1) & (slots - 1)) {
    const int32_t id = index_[slot];
    if (id == kNone || (*this)[static_cast<size_t>(id)] == text) return id;
  }
}

void StringTable::build_index() const {
  index_.assign(std::bit_ceil(2 * size()), kNone);
  const size_t slots = index_.size();
  for (size_t id = 0; id < size(); ++id) {
    const std::string_view text = (*this)[id];
    size_t slot = slot_of(text, slots);
    while (index_[slot] != kNone && (*this)[static_cast<size_t>(index_[slot])] != text) slot = (slot + 1) & (slots - 1);
    index_[slot] = static_cast<int32_t>(id);
  }
}

}  // namespace turbomind
