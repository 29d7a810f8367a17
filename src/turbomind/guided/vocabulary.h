// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "turbomind/guided/llguidance.h"

namespace turbomind {

// The tokens of a model as grammars see them: their bytes, which of them end a text, and which lead soonest to its end.
// Immutable.
class GuideVocabulary {
 public:
  // tokens: bytes by id, as many as the model has logits; empty = never drawn; a first byte 0xFF marks a control token,
  // which matches no text. Throws kUnsupported where the library refuses them.
  GuideVocabulary(std::shared_ptr<const LlguidanceApi> api, std::vector<std::string> tokens,
                  std::vector<int32_t> eos_token_ids);

  const LlguidanceApi& api() const { return *api_; }
  const LlgTokenizer* tokenizer() const { return tokenizer_.get(); }
  const std::vector<int32_t>& eos_token_ids() const { return eos_token_ids_; }
  size_t mask_words() const { return (tokens_.size() + 31) / 32; }

  // The token of one byte, or -1.
  int32_t byte_token(char byte) const { return byte_tokens_[static_cast<unsigned char>(byte)]; }
  // The text byte by byte; empty if a byte has no token.
  std::vector<int32_t> spell(const std::string& text) const;
  // The token's bytes; empty for a control token.
  std::string_view text(int32_t token) const;
  // The path less a text that it begins with; where that ends within one of its tokens, what is left of the token is
  // spelled byte by byte. nullopt where the path's text does not begin so.
  std::optional<std::vector<int32_t>> rest_after(std::string_view text, std::span<const int32_t> path) const;
  // True where nearly anything may follow, but no quotation mark and no end.
  bool is_open(std::span<const uint32_t> mask) const;

  // True where more tokens may follow than are worth ranking.
  bool is_wide(std::span<const uint32_t> mask) const;

  // The most promising of the tokens in a mask for closing what is open, best first, a few; none for an empty mask.
  std::vector<int32_t> closing_candidates(std::span<const uint32_t> mask) const;
  // The tokens in a mask of few that the token begins with, itself left out.
  std::vector<int32_t> beginnings(int32_t token, std::span<const uint32_t> mask) const;

 private:
  std::vector<int32_t> rank_few(const std::vector<int32_t>& tokens) const;
  // The first of each kind, a few. ranked: best first, none empty.
  std::vector<int32_t> choose(const std::vector<int32_t>& ranked) const;
  // True if the others are beginnings of this token: the text is forced.
  bool is_forced(int32_t longest, const std::vector<int32_t>& tokens) const;

  std::shared_ptr<const LlguidanceApi> api_;
  std::vector<std::string> tokens_;
  std::vector<int32_t> eos_token_ids_;
  std::shared_ptr<LlgTokenizer> tokenizer_;
  std::array<int32_t, 256> byte_tokens_{};
  std::vector<uint8_t> scores_;   // by token, lower closes sooner
  std::vector<int32_t> closers_;  // tokens to try first where many are allowed, best first
  std::vector<int32_t> fillers_;  // words, longest first
};

}  // namespace turbomind
