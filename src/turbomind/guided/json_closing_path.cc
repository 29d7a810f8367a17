// SPDX-License-Identifier: Apache-2.0
#include "turbomind/guided/json_closing_path.h"

#include <algorithm>
#include <string>
#include <string_view>

namespace turbomind {
namespace {

using Path = std::vector<int32_t>;
using PathSpan = std::span<const int32_t>;

// More are left to the search: trying each takes time with the length of what is left.
constexpr size_t kMaxFillersSkipped = 8;

// Tokens of a path up to the end of the string that it begins in.
struct StringEnd {
  size_t num_tokens;
  bool is_value;  // rather than the name of a property
};

std::optional<StringEnd> find_string_end(const GuideVocabulary& vocabulary, PathSpan path) {
  std::optional<StringEnd> end;
  for (size_t i = 0; i < path.size(); ++i) {
    std::string_view bytes = vocabulary.text(path[i]);
    if (!end) {
      const size_t behind = string_end(bytes);
      if (behind == std::string_view::npos) continue;
      end = {i + 1, true};
      bytes.remove_prefix(behind);
    }
    const std::string next = without_space({}, bytes);
    if (next.empty()) continue;
    end->is_value = next.front() != ':';
    return end;
  }
  return end;
}

// Where the token goes on with a string that was, and is, open: the string's new end, and the path as it was behind it.
// The end alone comes first, then the path as it is, then what fills a string that is too short, less and less of it.
std::optional<Path> rest_after_string(GrammarMatcher& matcher, PathSpan before, int64_t max_tokens) {
  const std::optional<StringEnd> end = find_string_end(matcher.vocabulary(), before);
  if (!end || !end->is_value) return std::nullopt;
  const size_t num_fillers = end->num_tokens - 1;
  for (size_t i = 0; i <= std::min(num_fillers, kMaxFillersSkipped); ++i) {
    const size_t skip = i == 0 ? num_fillers : i - 1;
    const PathSpan rest = before.subspan(skip);
    if (static_cast<int64_t>(rest.size()) > max_tokens) continue;
    if (matcher.can_consume(rest.first(end->num_tokens - skip))) return Path(rest.begin(), rest.end());
  }
  return std::nullopt;
}

// Where the token writes what the path would, be it with other whitespace between tokens of JSON: what is left of the
// path, which leads to the end as it did.
std::optional<Path> rest_after_text(GrammarMatcher& matcher, JsonText text, std::string_view bytes, PathSpan before) {
  const std::string kept = without_space(text, bytes);
  std::optional<Path> rest = matcher.vocabulary().rest_after(kept, before);
  if (!rest || kept.size() == bytes.size()) return rest;
  // Whitespace is bounded, so more of it may have to come before anything else.
  const bool follows = rest->empty() ? matcher.can_end_with({}) : matcher.can_consume(PathSpan(*rest).first(1));
  return follows ? rest : std::nullopt;
}

}  // namespace

std::optional<Path> rest_of_json_closing_path(GrammarMatcher& matcher, JsonText text, int32_t token, PathSpan before,
                                              bool free_strings, int64_t max_tokens) {
  const std::string_view bytes = matcher.vocabulary().text(token);
  if (bytes.empty()) return std::nullopt;
  std::optional<Path> rest = rest_after_text(matcher, text, bytes, before);
  if (rest && static_cast<int64_t>(rest->size()) <= max_tokens) return rest;
  // Within an escape a quotation mark of the path would end no string.
  if (!free_strings || !text.in_string() || text.in_escape() || string_end(bytes) != std::string_view::npos) {
    return std::nullopt;
  }
  text.append(bytes);
  return text.in_escape() ? std::nullopt : rest_after_string(matcher, before, max_tokens);
}

}  // namespace turbomind
