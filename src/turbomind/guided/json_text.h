// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace turbomind {

// The four bytes that RFC 8259 lets stand between tokens.
constexpr bool is_json_space(char byte) { return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r'; }

// Where a text of JSON stands as far as strings go. Knows bytes only: the text may break off anywhere.
class JsonText {
 public:
  bool in_string() const { return in_string_; }
  // Behind a backslash, which makes a quotation mark a part of the string.
  bool in_escape() const { return in_escape_; }

  void append(char byte);
  void append(std::string_view bytes);

 private:
  bool in_string_ = false;
  bool in_escape_ = false;
};

// The bytes less the whitespace that stands between tokens of JSON. begin: where the text stands before them.
std::string without_space(JsonText begin, std::string_view bytes);

// Behind the quotation mark that ends the string at whose begin, or within which, the bytes go on; npos without one.
size_t string_end(std::string_view bytes);

}  // namespace turbomind
