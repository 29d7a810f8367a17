// SPDX-License-Identifier: Apache-2.0
#include "turbomind/guided/closing_path.h"

#include <algorithm>
#include <deque>
#include <utility>

namespace turbomind {
namespace {

using Path = std::vector<int32_t>;

constexpr int64_t kMaxSteps = 20'000;     // masks computed, about 20 us each
constexpr int64_t kFirstLength = 64;      // lengths tried: this, then four times as long
constexpr size_t kMaxAlternatives = 256;  // departures that wait to be tried
constexpr size_t kMaxSkipped = 4;         // tokens of the earlier path that what was drawn may have made needless

class ClosingSearch {
 public:
  ClosingSearch(GrammarMatcher& matcher, std::span<const int32_t> before)
      : matcher_(matcher), before_(before), mask_(matcher.vocabulary().mask_words()) {}

  std::optional<Path> run(int64_t max_tokens) {
    for (int64_t length = kFirstLength; steps_ < kMaxSteps; length *= 4) {
      const int64_t limit = std::min(length, max_tokens);
      if (std::optional<Path> path = search(limit)) return path;
      if (limit == max_tokens) break;
    }
    return std::nullopt;
  }

 private:
  std::optional<Path> search(int64_t max_tokens) {
    alternatives_.assign(1, {});
    while (!alternatives_.empty() && steps_ < kMaxSteps) {
      const Path begin = std::move(alternatives_.front());
      alternatives_.pop_front();
      if (std::optional<Path> path = descend(begin, max_tokens)) return path;
    }
    return std::nullopt;
  }

  // Follows the best candidates from there. The matcher returns to where it was.
  std::optional<Path> descend(Path path, int64_t max_tokens) {
    for (const int32_t token : path) matcher_.consume(token);
    bool found = false;
    while (!found && static_cast<int64_t>(path.size()) <= max_tokens && steps_++ < kMaxSteps) {
      found = ends(path, max_tokens);
      if (found || !advance(path)) break;
    }
    matcher_.roll_back(std::min(path.size(), consumed_of(path)));
    spliced_ = 0;
    if (!found) return std::nullopt;
    return path;
  }

  // True if the text may end here, or with the rest of the earlier path, which is then appended.
  bool ends(Path& path, int64_t max_tokens) {
    if (matcher_.is_accepting()) return true;
    for (size_t skip = 0; skip <= std::min(kMaxSkipped, before_.size()); ++skip) {
      const std::span<const int32_t> rest = before_.subspan(skip);
      if (rest.empty() || static_cast<int64_t>(path.size() + rest.size()) > max_tokens) continue;
      if (!matcher_.can_end_with(rest)) continue;
      path.insert(path.end(), rest.begin(), rest.end());
      spliced_ = rest.size();
      return true;
    }
    return false;
  }

  bool advance(Path& path) {
    matcher_.fill_mask(mask_);
    const std::vector<int32_t> candidates = matcher_.vocabulary().closing_candidates(mask_);
    if (candidates.empty()) return false;
    for (size_t i = 1; i < candidates.size() && alternatives_.size() < kMaxAlternatives; ++i) {
      alternatives_.push_back(path);
      alternatives_.back().push_back(candidates[i]);
    }
    matcher_.consume(candidates.front());
    path.push_back(candidates.front());
    return true;
  }

  size_t consumed_of(const Path& path) const { return path.size() - spliced_; }

  GrammarMatcher& matcher_;
  std::span<const int32_t> before_;
  std::vector<uint32_t> mask_;
  std::deque<Path> alternatives_;
  size_t spliced_ = 0;  // last tokens of the path being followed that the matcher has not consumed
  int64_t steps_ = 0;
};

}  // namespace

std::optional<std::vector<int32_t>> find_closing_path(GrammarMatcher& matcher, std::span<const int32_t> before,
                                                      int64_t max_tokens) {
  return ClosingSearch(matcher, before).run(max_tokens);
}

}  // namespace turbomind
