// SPDX-License-Identifier: Apache-2.0
//
// What a guide's vocabulary knows of tokens by itself, so without the grammar library.
#include <optional>
#include <string>
#include <vector>

#include "support/test.h"
#include "turbomind/guided/vocabulary.h"

namespace turbomind::test {
namespace {

using Path = std::vector<int32_t>;

GuideVocabulary make_vocabulary(const std::vector<std::string>& tokens) {
  auto api = std::make_shared<LlguidanceApi>();
  static int tokenizer;
  api->new_tokenizer_v2 = [](const LlgTokenizerInitV2*, char*, size_t) {
    return reinterpret_cast<LlgTokenizer*>(&tokenizer);
  };
  api->free_tokenizer = [](LlgTokenizer*) {};
  return {api, tokens, {0}};
}

TEST(a_path_goes_on_behind_a_token_that_its_text_begins_with) {
  //                                        0      1    2    3    4     5      6      7     8     9    10
  const GuideVocabulary vocabulary =
      make_vocabulary({"</s>", "a", "b", "c", "ab", "abc", "bca", "\xFF<x>", "", "cx", "ca"});
  const auto rest = [&](int32_t token, const Path& path) {
    return vocabulary.rest_after(vocabulary.text(token), path);
  };
  EXPECT(rest(1, {1, 2, 3}) == Path({2, 3}));
  // Within a token of the path: what is left of that byte by byte.
  EXPECT(rest(1, {5, 2}) == Path({2, 3, 2}));
  EXPECT(rest(4, {1, 6, 5}) == Path({3, 1, 5}));
  // Over several of them, to the end of the path or of its last token.
  EXPECT(rest(5, {1, 2, 3}) == Path{});
  EXPECT(rest(5, {4, 10}) == Path({1}));
  // Another text, one that goes beyond the path's, and none.
  EXPECT(rest(2, {1, 2}) == std::nullopt);
  EXPECT(rest(9, {3, 1}) == std::nullopt);
  EXPECT(rest(5, {1, 2}) == std::nullopt);
  EXPECT(rest(1, {}) == std::nullopt);
  // Bytes without a token cannot be spelled; control tokens and empty ones are no text.
  EXPECT(rest(3, {9}) == std::nullopt);
  EXPECT(vocabulary.text(7).empty());
  EXPECT(rest(1, {7, 1}) == std::nullopt);
  EXPECT(rest(1, {8, 1}) == std::nullopt);
}

}  // namespace
}  // namespace turbomind::test
