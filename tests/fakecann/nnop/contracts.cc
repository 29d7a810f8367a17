// SPDX-License-Identifier: Apache-2.0
//
// The contracts' text, and what a test may ask about it.
#include <string>

#include "abi/control.h"
#include "nnop/contract.h"

namespace fakecann {

const char* contract_text() {
  return
#include "contracts/index.inc"
#include "contracts/layers.inc"
#include "contracts/math.inc"
#include "contracts/matmul.inc"
#include "contracts/transformer.inc"
      ;
}

}  // namespace fakecann

const char* fakecannRules() {
  static std::string text;
  text = fakecann::list_rules();
  return text.c_str();
}

const char* fakecannRulesThatRefused() {
  static std::string text;
  text = fakecann::list_refusals();
  return text.c_str();
}
