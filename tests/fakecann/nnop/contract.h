// SPDX-License-Identifier: Apache-2.0
//
// Operator contracts as data. Each file of contracts/ is a list of blocks
//
//   op Name Name...            the operators that the block is about
//   doc DOCUMENT               the public document that says so
//   products a2 a3 310p 950    the profiles on which they exist
//   RULE...
//
// and a rule is, optionally after a "[310p 950]" that bounds it to profiles, one of
//
//   dtype ARG...: D D D            each ARG has one of these dtypes
//   combo ARG ARG: D D | D none    the dtypes of the ARGs are, together, one of these; none: the argument is null
//   samedtype ARG ARG...           they are equal
//   rank ARG...: LOW HIGH          number of dimensions
//   format ARG...: ND NZ
//   dim ARG AXIS: LOW HIGH         size of a dimension (negative axes count from the end)
//   dimin ARG AXIS: V V V          it is one of these
//   dimmul ARG AXIS: N             it is a multiple of N
//   same ARG ARG...                equal shapes
//   contiguous ARG...
//   given ARG...                   not null (161001); tensors are so unless a rule says
//   optional ARG...                may be null
//   absent ARG...                  null: documented, but not emulated
//   attr NAME: LOW HIGH            integer attribute
//   attrin NAME: V V V
//   text NAME: WORD WORD
//   when NAME=VALUE RULE           only where an attribute or text has that value
//   when NAME=DTYPE RULE           or a tensor that dtype
//
// Rules about an absent tensor hold. A tensor that no dtype, combo or samedtype rule of the profile names is refused:
// what no document describes is not guessed.
#ifndef FAKECANN_NNOP_CONTRACT_H_
#define FAKECANN_NNOP_CONTRACT_H_

#include <string>

#pragma GCC visibility push(default)

namespace fakecann {

class Call;

void check_contract(const Call& call);
[[noreturn]] void refuse(const Call& call, const std::string& rule, int code);
// Rules that an operator's code holds, since the grammar cannot say them: known from when a call first meets them.
void note_rule(const std::string& op, const std::string& rule);
void note_refusal(const std::string& op, const std::string& rule);
// One line a rule of the profile in use, "op: rule"; those that have refused a call so far.
std::string list_rules();
std::string list_refusals();

}  // namespace fakecann

#pragma GCC visibility pop

#endif  // FAKECANN_NNOP_CONTRACT_H_
