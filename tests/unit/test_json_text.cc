// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "support/test.h"
#include "turbomind/guided/json_text.h"

namespace turbomind::test {
namespace {

JsonText behind(const std::string& bytes) {
  JsonText text;
  text.append(bytes);
  return text;
}

TEST(a_text_is_within_a_string_from_quotation_mark_to_quotation_mark) {
  EXPECT(!behind("").in_string());
  EXPECT(behind("{\"").in_string());
  EXPECT(!behind("{\"a\"").in_string());
  EXPECT(behind("{\"a\": \"b").in_string());
  // An escaped one does not count, one behind an escaped backslash does.
  EXPECT(behind("\"a\\").in_escape());
  EXPECT(behind("\"a\\\"").in_string() && !behind("\"a\\\"").in_escape());
  EXPECT(behind("\"a\\\\").in_string() && !behind("\"a\\\\").in_escape());
  EXPECT(!behind("\"a\\\\\"").in_string());
}

TEST(whitespace_counts_within_strings_only) {
  EXPECT(without_space({}, " {\n\t\"a b\" :\r 1 } ") == "{\"a b\":1}");
  EXPECT(without_space(behind("\"a"), " b\\\" c\" , \"") == " b\\\" c\",\"");
  EXPECT(without_space(behind("\"\\"), "\" a\" ") == "\" a\"");
}

TEST(the_end_of_a_string_is_behind_its_quotation_mark) {
  EXPECT(string_end("\", \"b\"") == 1);
  EXPECT(string_end("ab\"") == 3);
  EXPECT(string_end("a\\\"b\"}") == 5);
  EXPECT(string_end("ab") == std::string::npos);
  EXPECT(string_end("a\\\"") == std::string::npos);
  EXPECT(string_end("") == std::string::npos);
}

}  // namespace
}  // namespace turbomind::test
