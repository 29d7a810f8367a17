// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "turbomind/guided/matcher.h"

namespace turbomind {

// Tokens that bring the matcher's text to an end that the grammar accepts, at most max_tokens; nullopt if none were
// found with reasonable effort. before: tokens that did so from one token earlier; what is left of them is used again
// where it still fits, so that a step costs as much as has changed. hints: see GrammarGuide. The matcher is left as it
// was.
//
// Limited discrepancy search (Harvey and Ginsberg, IJCAI 1995) over the candidates of
// GuideVocabulary::closing_candidates: first the best one everywhere, then one departure from it, then more.
std::optional<std::vector<int32_t>> find_closing_path(GrammarMatcher& matcher, std::span<const int32_t> before,
                                                      const std::vector<std::vector<int32_t>>& hints,
                                                      int64_t max_tokens);

}  // namespace turbomind
