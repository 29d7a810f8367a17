// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "turbomind/engine/token_guide.h"
#include "turbomind/guided/closing_path.h"
#include "turbomind/guided/json_text.h"
#include "turbomind/guided/matcher.h"

namespace turbomind {

// Keeps a sequence's text within a grammar and brings it to an end in time. It always knows tokens that would end the
// text from where it is; a drawn token after which none are found that fit into the draws left is refused, and from
// then on only those known tokens may be drawn.
class GrammarGuide : public TokenGuide {
 public:
  // hints: texts, or ends of texts, that strings of the grammar may have to contain, such as an example of each regular
  // expression; exits: words that end a text in which everything else is free. Both are tried where the grammar alone
  // does not show how to go on. free_strings: of a JSON Schema, what may follow a string that is a value does not
  // depend on what is in it, which spares most of the work on tokens within strings. Throws kInvalidArgument on a
  // grammar that is refused, or of which no text was found.
  GrammarGuide(std::shared_ptr<const GuideVocabulary> vocabulary, const std::string& kind, const std::string& grammar,
               const std::vector<std::string>& hints, const std::vector<std::string>& exits, bool free_strings);

  std::unique_ptr<TokenGuide> clone() const override { return std::make_unique<GrammarGuide>(*this); }
  int64_t draws_to_end() const override { return static_cast<int64_t>(path_to_end().size()) + 1; }
  void fill_mask(std::span<uint32_t> mask) override;
  bool accept(int32_t token, int64_t draws_left) override;

 private:
  std::span<const int32_t> path_to_end() const { return std::span(path_).subspan(next_); }
  // False: no tokens that end the text in so many draws were found; the path is as before.
  bool update_path(int32_t token, int64_t draws_left);
  // Tokens, at most max_tokens, that end the text behind the token; before: those that did so before it.
  std::optional<std::vector<int32_t>> find_path(int32_t token, std::span<const int32_t> before, int64_t max_tokens);

  GrammarMatcher matcher_;
  std::shared_ptr<const ClosingHints> hints_;
  bool is_json_;
  bool free_strings_;
  JsonText text_;              // where it stands, if it is JSON
  std::vector<int32_t> path_;  // from next_ on: tokens that bring the text to an end
  size_t next_ = 0;
  bool closing_ = false;  // nothing but the path may be drawn
};

}  // namespace turbomind
