// SPDX-License-Identifier: Apache-2.0
#include "turbomind/guided/json_text.h"

namespace turbomind {

void JsonText::append(char byte) {
  if (in_escape_) {
    in_escape_ = false;
  } else if (byte == '"') {
    in_string_ = !in_string_;
  } else if (byte == '\\') {
    in_escape_ = in_string_;
  }
}

void JsonText::append(std::string_view bytes) {
  for (const char byte : bytes) append(byte);
}

std::string without_space(JsonText begin, std::string_view bytes) {
  std::string kept;
  for (const char byte : bytes) {
    if (begin.in_string() || !is_json_space(byte)) kept += byte;
    begin.append(byte);
  }
  return kept;
}

size_t string_end(std::string_view bytes) {
  JsonText text;
  text.append('"');
  for (size_t i = 0; i < bytes.size(); ++i) {
    text.append(bytes[i]);
    if (!text.in_string()) return i + 1;
  }
  return std::string_view::npos;
}

}  // namespace turbomind
