// SPDX-License-Identifier: Apache-2.0
#include "turbomind/guided/closing_path.h"

#include <algorithm>
#include <deque>
#include <utility>

namespace turbomind {
namespace {

using Path = std::vector<int32_t>;

// Lengths tried, and masks computed for each, about 20 us apiece.
struct Effort {
  int64_t max_tokens;
  int64_t max_steps;
};
constexpr Effort kGreedy = {1024, 1024};  // without any departure
constexpr Effort kEfforts[] = {{64, 2048}, {256, 4096}, {1024, 4096}, {16'384, 16'384}};

constexpr size_t kMaxAlternatives = 256;  // departures that wait to be tried

// Tokens of the earlier path that what was drawn may have made needless, such as those that would have filled a string.
// Trying one more costs some microseconds, looking for another path milliseconds.
constexpr size_t kMaxSkipped = 64;
constexpr size_t kMaxSkippedOnTheWay = 4;  // after each token of another path

class ClosingSearch {
 public:
  ClosingSearch(GrammarMatcher& matcher, std::span<const int32_t> before, const ClosingHints& hints)
      : matcher_(matcher),
        before_(before),
        hints_(hints),
        mask_(matcher.vocabulary().mask_words()),
        exit_mask_(mask_.size()) {}

  std::optional<Path> run(int64_t max_tokens) {
    Path rest;
    steps_left_ = kGreedy.max_steps;
    std::optional<Path> path;
    if (ends(matcher_, rest, kGreedy.max_tokens, kMaxSkipped)) {
      path = std::move(rest);
    } else {
      path = descend({}, kGreedy.max_tokens);
    }
    // Departures from a way that leads to the end would save little, and this is how every refusal comes about.
    if (path) return static_cast<int64_t>(path->size()) <= max_tokens ? path : std::nullopt;
    for (const Effort& effort : kEfforts) {
      steps_left_ = effort.max_steps;
      path = search(std::min(effort.max_tokens, max_tokens));
      if (path) return path;
    }
    return std::nullopt;
  }

 private:
  std::optional<Path> search(int64_t max_tokens) {
    alternatives_.assign(1, {});
    while (!alternatives_.empty() && steps_left_ > 0) {
      const Path begin = std::move(alternatives_.front());
      alternatives_.pop_front();
      if (std::optional<Path> path = descend(begin, max_tokens)) return path;
    }
    return std::nullopt;
  }

  // Follows the best candidates from there, on a copy: a matcher whose tokens were taken back may answer with the mask
  // of what it has seen since (llguidance 1.9 keeps its last mask through a rollback).
  std::optional<Path> descend(Path path, int64_t max_tokens) {
    GrammarMatcher matcher(matcher_);
    for (const int32_t token : path) matcher.consume(token);
    while (static_cast<int64_t>(path.size()) <= max_tokens && steps_left_-- > 0) {
      if (ends(matcher, path, max_tokens, kMaxSkippedOnTheWay)) return path;
      if (!advance(matcher, path)) break;
    }
    return std::nullopt;
  }

  // True if the text may end here, or with the rest of the earlier path, which is then appended.
  bool ends(GrammarMatcher& matcher, Path& path, int64_t max_tokens, size_t max_skipped) {
    if (matcher.is_accepting()) return true;
    for (size_t skip = 0; skip <= std::min(max_skipped, before_.size()); ++skip) {
      const std::span<const int32_t> rest = before_.subspan(skip);
      if (rest.empty() || static_cast<int64_t>(path.size() + rest.size()) > max_tokens) continue;
      if (!matcher.can_end_with(rest)) continue;
      path.insert(path.end(), rest.begin(), rest.end());
      return true;
    }
    return false;
  }

  bool advance(GrammarMatcher& matcher, Path& path) {
    matcher.fill_mask(mask_);
    const Path hint = matcher.vocabulary().is_open(mask_) ? find_hint(matcher) : find_exit(matcher);
    for (const int32_t token : hint) matcher.consume(token);
    path.insert(path.end(), hint.begin(), hint.end());
    if (!hint.empty()) return true;
    const std::vector<int32_t> candidates = matcher.vocabulary().closing_candidates(mask_);
    if (candidates.empty()) return false;
    for (size_t i = 1; i < candidates.size() && alternatives_.size() < kMaxAlternatives; ++i) {
      alternatives_.push_back(path);
      alternatives_.back().push_back(candidates[i]);
    }
    const int32_t chosen = shortest_end(matcher, candidates.front());
    matcher.consume(chosen);
    path.push_back(chosen);
    return true;
  }

  // The token, or one that it begins with if the text may end there: what is behind a place like that in the token,
  // such as what separates items of a list, is not forced, though no other token may follow.
  int32_t shortest_end(GrammarMatcher& matcher, int32_t token) {
    for (const int32_t begin : matcher.vocabulary().beginnings(token, mask_)) {
      if (matcher.can_end_with(std::span(&begin, 1))) return begin;
    }
    return token;
  }

  // Where nearly anything may follow, but not the end, only the grammar's author knows what leads there: the shortest
  // end of a hint after which the string, or the text, can end.
  Path find_hint(GrammarMatcher& matcher) {
    for (const Path& hint : hints_.strings) {
      for (size_t begin = hint.size(); begin-- > 0;) {
        const std::span<const int32_t> rest = std::span(hint).subspan(begin);
        if (matcher.can_close_after(rest)) return {rest.begin(), rest.end()};
      }
    }
    return {};
  }

  // Where anything may follow, quotation marks too, but nothing but a certain word leads on: the word after which few
  // tokens are left. Empty in a string of JSON, which such a word does not end.
  Path find_exit(const GrammarMatcher& matcher) {
    if (hints_.exits.empty() || !matcher.vocabulary().is_wide(mask_)) return {};
    for (const Path& exit : hints_.exits) {
      GrammarMatcher copy(matcher);
      if (!copy.can_consume(exit)) continue;
      for (const int32_t token : exit) copy.consume(token);
      copy.fill_mask(exit_mask_);
      if (copy.is_accepting() || !matcher.vocabulary().is_wide(exit_mask_)) return exit;
    }
    return {};
  }

  GrammarMatcher& matcher_;
  std::span<const int32_t> before_;
  const ClosingHints& hints_;
  std::vector<uint32_t> mask_;
  std::vector<uint32_t> exit_mask_;
  std::deque<Path> alternatives_;
  int64_t steps_left_ = 0;
};

}  // namespace

std::optional<std::vector<int32_t>> find_closing_path(GrammarMatcher& matcher, std::span<const int32_t> before,
                                                      const ClosingHints& hints, int64_t max_tokens) {
  return ClosingSearch(matcher, before, hints).run(max_tokens);
}

}  // namespace turbomind
