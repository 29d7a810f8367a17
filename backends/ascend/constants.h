// SPDX-License-Identifier: Apache-2.0
//
// Device tables that ops read and nothing changes.
#pragma once

#include "memory.h"
#include "view.h"

namespace turbomind::ascend {

class Context;

class Constants {
 public:
  explicit Constants(Context& context);

  View causal_mask() const { return causal_mask_; }       // bool [2048, 2048], 1 above the diagonal
  View bits() const { return bits_; }                     // u8 [8]: 1, 2, 4, ... 128
  View low_word() const { return low_word_; }             // i64 [1]: 2^32 - 1
  View philox_factors() const { return factors_; }        // i64 [2]: those of words 2 and 0
  View philox_increments() const { return increments_; }  // i64 [10, 2]: what round r adds to both key words

 private:
  Memory memory_;
  View causal_mask_;
  View bits_;
  View low_word_;
  View factors_;
  View increments_;
};

}  // namespace turbomind::ascend
