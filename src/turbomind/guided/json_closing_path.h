// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "turbomind/guided/json_text.h"
#include "turbomind/guided/matcher.h"

namespace turbomind {

// Tokens that end a text of JSON where the form of JSON shows it, without the matcher going over them all, which takes
// most of a guide's time; nullopt where it does not show, or they are more than max_tokens.
//
// matcher: has taken the token. text: where it stood before the token. before: tokens that ended the text from there.
// free_strings: what may follow a string that is a value does not depend on what is in it. Then the end of the string
// is all that a token within it can change.
std::optional<std::vector<int32_t>> rest_of_json_closing_path(GrammarMatcher& matcher, JsonText text, int32_t token,
                                                              std::span<const int32_t> before, bool free_strings,
                                                              int64_t max_tokens);

}  // namespace turbomind
