// SPDX-License-Identifier: Apache-2.0
//
// The SentencePiece BPE model with byte fallback (the "llama" tokenizer of GGUF files). It merges by score, straight
// from the vocabulary: a list of merges, half a million for 262k pieces, would have to be made first.
// Source: Kudo and Richardson 2018 (arXiv:1808.06226); Sennrich et al. 2016 (arXiv:1508.07909) for the merging.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "turbomind/text/string_table.h"

namespace turbomind {

// Immutable; any number of threads may encode.
class SpmModel {
 public:
  // What stands for a character that is no piece.
  struct Fallback {
    std::optional<std::array<int32_t, 256>> bytes;  // the id of each byte of its UTF-8
    std::optional<int32_t> unknown;                 // where there are no byte tokens; without it the character is lost
  };

  // scores: by id, higher merges sooner. apart: ids that text never becomes (control tokens and the like). Throws
  // kInvalidArgument if there is not one score a piece, if one is no number, or if an id of apart or the unknown one is
  // outside the vocabulary.
  SpmModel(std::shared_ptr<const StringTable> pieces, std::vector<float> scores, std::span<const int32_t> apart,
           const Fallback& fallback);

  // text: UTF-8 in which U+2581 stands for a space. Time n log n in its length.
  std::vector<int32_t> encode(std::string_view text) const;

 private:
  int32_t find(std::string_view text) const;

  std::shared_ptr<const StringTable> pieces_;
  std::vector<float> scores_;
  std::vector<bool> apart_;  // by id
  Fallback fallback_;
};

}  // namespace turbomind
