// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "turbomind/guided/vocabulary.h"

namespace turbomind {

// Where a text stands in a grammar. A grammar that is too complex to go on is thrown as kInvalidArgument: the library
// has limits, and errors of it are the grammar's doing.
class GrammarMatcher {
 public:
  // kind: "json_schema", "regex", "lark" or "llguidance", see llguidance's llg_new_matcher. Throws kInvalidArgument
  // with the library's words on a grammar it refuses.
  GrammarMatcher(std::shared_ptr<const GuideVocabulary> vocabulary, const std::string& kind,
                 const std::string& grammar);
  GrammarMatcher(const GrammarMatcher& other);
  GrammarMatcher& operator=(const GrammarMatcher&) = delete;

  const GuideVocabulary& vocabulary() const { return *vocabulary_; }

  // What the library computes of a grammar it computes where a text first leads there, and keeps; copies take it along.
  // So one that has gone over some tokens that can follow, with their masks, spares its copies much of that. Stops in
  // front of the last token, and after about so much time; leaves the text where it stands, which is its begin.
  void warm_up(std::span<const int32_t> tokens, std::chrono::microseconds most);

  // mask: u32 [vocabulary().mask_words()]; overwritten.
  void fill_mask(std::span<uint32_t> mask);
  void consume(int32_t token);
  // Takes the last tokens back. Tokens may be consumed from then on, but masks are not to be asked for.
  void roll_back(size_t count);
  // True if the tokens can follow.
  bool can_consume(std::span<const int32_t> tokens);
  // True if the tokens can follow and end the text.
  bool can_end_with(std::span<const int32_t> tokens);
  // True if the tokens can follow, and a quotation mark or the end of the text after them.
  bool can_close_after(std::span<const int32_t> tokens);
  // True if the text may end here.
  bool is_accepting();

 private:
  struct Free {
    std::shared_ptr<const GuideVocabulary> vocabulary;
    void operator()(LlgMatcher* matcher) const { vocabulary->api().free_matcher(matcher); }
  };

  const LlguidanceApi& api() const { return vocabulary_->api(); }
  // How many of the tokens, and then of `last`, can follow.
  size_t count_valid(std::span<const int32_t> tokens, int32_t last);
  void check_done(int32_t status);

  std::shared_ptr<const GuideVocabulary> vocabulary_;
  std::unique_ptr<LlgMatcher, Free> matcher_;
  std::vector<uint32_t> tokens_;  // scratch
};

}  // namespace turbomind
