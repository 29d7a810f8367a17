// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace turbomind {

// Says which tokens a sequence may draw next, such as those that keep its text within a grammar. State of one sequence:
// not thread-safe, except that several threads may clone one that nobody changes. May throw Error, which ends the
// sequence.
class TokenGuide {
 public:
  virtual ~TokenGuide() = default;

  // Another guide in the same state.
  virtual std::unique_ptr<TokenGuide> clone() const = 0;

  // Draws that are enough to come to an end from here, the one that ends the sequence included.
  virtual int64_t draws_to_end() const = 0;

  // Sets the bits of the tokens that may be drawn now. mask: u32 [ceil(vocab / 32)], bit v % 32 of word v / 32; all 0.
  virtual void fill_mask(std::span<uint32_t> mask) = 0;

  // Takes the token that was drawn, one of the mask that ends no sequence. draws_left: after this one. False: the token
  // is refused, since no end could be reached in time; the guide is where it was, and the next mask leaves it out.
  virtual bool accept(int32_t token, int64_t draws_left) = 0;
};

}  // namespace turbomind
