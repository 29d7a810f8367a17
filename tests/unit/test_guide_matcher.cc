// SPDX-License-Identifier: Apache-2.0
//
// What a matcher asks of the grammar library, which here only writes it down.
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "support/test.h"
#include "turbomind/guided/matcher.h"

struct LlgMatcher {
  std::string calls;
};

namespace turbomind::test {
namespace {

constexpr uint32_t kTooComplex = 9;  // a token that the grammar fails at
constexpr std::chrono::seconds kLong(100);

// Of the matcher that was last asked whether its text may end.
std::string& asked_calls() {
  static std::string calls;
  return calls;
}

std::shared_ptr<const GuideVocabulary> make_vocabulary() {
  auto api = std::make_shared<LlguidanceApi>();
  static int tokenizer;
  api->new_tokenizer_v2 = [](const LlgTokenizerInitV2*, char*, size_t) {
    return reinterpret_cast<LlgTokenizer*>(&tokenizer);
  };
  api->free_tokenizer = [](LlgTokenizer*) {};
  api->constraint_init_set_defaults = [](LlgConstraintInit*, const LlgTokenizer*) {};
  api->new_matcher = [](const LlgConstraintInit*, const char*, const char*) { return new LlgMatcher; };
  api->clone_matcher = [](const LlgMatcher* other) { return new LlgMatcher{other->calls + "copy "}; };
  api->free_matcher = [](LlgMatcher* matcher) { delete matcher; };
  api->matcher_get_error = [](LlgMatcher*) -> const char* { return nullptr; };
  api->matcher_get_mask_byte_size = [](const LlgMatcher*) { return sizeof(uint32_t); };
  api->matcher_compute_mask_into = [](LlgMatcher* matcher, uint32_t*, size_t) {
    matcher->calls += "mask ";
    return 0;
  };
  api->matcher_consume_token = [](LlgMatcher* matcher, uint32_t token) {
    matcher->calls += std::to_string(token) + " ";
    return token == kTooComplex ? -1 : 0;
  };
  api->matcher_rollback = [](LlgMatcher* matcher, size_t count) {
    matcher->calls += "back" + std::to_string(count) + " ";
    return 0;
  };
  api->matcher_is_accepting = [](LlgMatcher* matcher) {
    asked_calls() = matcher->calls;
    return false;
  };
  return std::make_shared<GuideVocabulary>(api, std::vector<std::string>(10, "a"), std::vector<int32_t>{0});
}

std::string calls_of(GrammarMatcher& matcher) {
  matcher.is_accepting();
  return asked_calls();
}

TEST(a_warm_matcher_has_gone_over_the_tokens_and_stands_where_it_stood) {
  GrammarMatcher matcher(make_vocabulary(), "regex", "");
  matcher.warm_up(std::vector<int32_t>{1, 2, 3}, kLong);
  // With the mask of where it stands at the end, in place of a later one that the library may have kept.
  EXPECT(calls_of(matcher) == "copy mask 1 mask 2 mask back2 mask ");
}

TEST(a_matcher_warms_up_as_long_as_it_may) {
  GrammarMatcher matcher(make_vocabulary(), "regex", "");
  matcher.warm_up(std::vector<int32_t>{1, 2, 3}, std::chrono::seconds(0));
  EXPECT(calls_of(matcher) == "copy mask mask ");
}

TEST(a_matcher_that_cannot_warm_up_is_as_it_was) {
  GrammarMatcher matcher(make_vocabulary(), "regex", "");
  matcher.warm_up(std::vector<int32_t>{1, static_cast<int32_t>(kTooComplex), 3}, kLong);
  EXPECT(calls_of(matcher).empty());
}

}  // namespace
}  // namespace turbomind::test
