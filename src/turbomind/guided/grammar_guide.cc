// SPDX-License-Identifier: Apache-2.0
#include "turbomind/guided/grammar_guide.h"

#include <chrono>
#include <optional>
#include <string_view>
#include <utility>

#include "turbomind/core/error.h"
#include "turbomind/guided/json_closing_path.h"

namespace turbomind {
namespace {

// A grammar whose shortest text is longer is of no use to any model.
constexpr int64_t kLongestMinimum = 16'384;

// About as much as is there to be learnt of a schema of ten properties; what is learnt makes copies take longer.
constexpr std::chrono::milliseconds kWarmUpTime(5);

std::string text_of(const GuideVocabulary& vocabulary, std::span<const int32_t> path) {
  std::string text;
  for (const int32_t token : path) text += vocabulary.text(token);
  return text;
}

std::vector<std::vector<int32_t>> spell(const GuideVocabulary& vocabulary, const std::vector<std::string>& texts) {
  std::vector<std::vector<int32_t>> spelled;
  for (const std::string& text : texts) spelled.push_back(vocabulary.spell(text));
  return spelled;
}

void set_bit(std::span<uint32_t> mask, int32_t token) {
  mask[static_cast<size_t>(token) / 32] |= uint32_t{1} << token % 32;
}

}  // namespace

GrammarGuide::GrammarGuide(std::shared_ptr<const GuideVocabulary> vocabulary, const std::string& kind,
                           const std::string& grammar, const std::vector<std::string>& hints,
                           const std::vector<std::string>& exits, bool free_strings)
    : matcher_(std::move(vocabulary), kind, grammar),
      hints_(std::make_shared<const ClosingHints>(
          ClosingHints{spell(matcher_.vocabulary(), hints), spell(matcher_.vocabulary(), exits)})),
      is_json_(kind == "json_schema"),
      free_strings_(free_strings) {
  check(is_json_ || !free_strings, ErrorCode::kInvalidArgument,
        "free_strings: expected a grammar of the kind json_schema, found ", kind);
  std::optional<std::vector<int32_t>> path = find_closing_path(matcher_, {}, *hints_, kLongestMinimum);
  check(path.has_value(), ErrorCode::kInvalidArgument, "expected a grammar with a text of at most ", kLongestMinimum,
        " tokens, found none");
  path_ = std::move(*path);
  // Byte by byte, as strings drawn may be of any length. Not what may count its tokens.
  if (is_json_) matcher_.warm_up(matcher_.vocabulary().spell(text_of(matcher_.vocabulary(), path_)), kWarmUpTime);
}

void GrammarGuide::fill_mask(std::span<uint32_t> mask) {
  if (!closing_) return matcher_.fill_mask(mask);
  if (!path_to_end().empty()) return set_bit(mask, path_to_end().front());
  for (const int32_t token : matcher_.vocabulary().eos_token_ids()) set_bit(mask, token);
}

bool GrammarGuide::accept(int32_t token, int64_t draws_left) {
  matcher_.consume(token);
  if (!update_path(token, draws_left)) {
    matcher_.roll_back(1);
    closing_ = true;
    return false;
  }
  if (is_json_) text_.append(matcher_.vocabulary().text(token));
  return true;
}

bool GrammarGuide::update_path(int32_t token, int64_t draws_left) {
  const std::span<const int32_t> before = path_to_end();
  if (!before.empty() && before.front() == token && static_cast<int64_t>(before.size()) <= draws_left) {
    ++next_;
    return true;
  }
  std::optional<std::vector<int32_t>> path = find_path(token, before, draws_left - 1);
  if (!path) return false;
  path_ = std::move(*path);
  next_ = 0;
  return true;
}

std::optional<std::vector<int32_t>> GrammarGuide::find_path(int32_t token, std::span<const int32_t> before,
                                                            int64_t max_tokens) {
  const GuideVocabulary& vocabulary = matcher_.vocabulary();
  if (is_json_) {
    std::optional<std::vector<int32_t>> path =
        rest_of_json_closing_path(matcher_, text_, token, before, free_strings_, max_tokens);
    if (path) return path;
  }
  // Models write what is forced, such as names of properties, in other tokens than the path: the text is the same.
  const std::string_view text = vocabulary.text(token);
  std::optional<std::vector<int32_t>> rest;
  if (!text.empty()) rest = vocabulary.rest_after(text, before);
  const bool fits = rest && static_cast<int64_t>(rest->size()) <= max_tokens;
  return find_closing_path(matcher_, fits ? std::span<const int32_t>(*rest) : before, *hints_, max_tokens);
}

}  // namespace turbomind
