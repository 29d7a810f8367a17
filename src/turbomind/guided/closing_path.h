// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "turbomind/guided/matcher.h"

namespace turbomind {

// Spelled texts that lead on where the grammar does not show what does.
struct ClosingHints {
  std::vector<std::vector<int32_t>> strings;  // or ends of them: what a string may have to contain
  std::vector<std::vector<int32_t>> exits;    // what ends a text in which everything else is free
};

// Tokens that bring the matcher's text to an end that the grammar accepts, at most max_tokens; nullopt if none were
// found with reasonable effort. before: tokens that did so from one token earlier; what is left of them is used again
// where it still fits, so that a step costs as much as has changed. The matcher is left as it was.
//
// Limited discrepancy search (Harvey and Ginsberg, IJCAI 1995) over the candidates of
// GuideVocabulary::closing_candidates: first the best one everywhere, then one departure from it, then more.
std::optional<std::vector<int32_t>> find_closing_path(GrammarMatcher& matcher, std::span<const int32_t> before,
                                                      const ClosingHints& hints, int64_t max_tokens);

}  // namespace turbomind
