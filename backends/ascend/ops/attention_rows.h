// SPDX-License-Identifier: Apache-2.0
//
// Attention composed of products, a mask and a softmax in float32: what the fused operator does not offer (float32,
// caps, sinks, unequal dtypes, windows over single rows).
#pragma once

#include "ops.h"

namespace turbomind::ascend {

struct AttentionProblem {
  float scale;
  int64_t window;          // 0: all
  float softcap;           // 0: none
  int64_t most_positions;  // that any rows of the call attend to; decides how many rows are taken at once
  View sinks;              // f32 [q_heads]; data NULL: none
};

// Keys and values that some rows attend to: [positions, kv_heads, width], any float dtype. NaN is allowed where
// `unseen` says 1 (bool [positions, 1]); data NULL: every place is seen by some row.
struct Attended {
  View keys;
  View values;
  View unseen;
};

// q [rows, q_heads, dim] attends; out [rows, q_heads, dim_v]. hidden: bool [rows, positions], 1 where a row must not
// look; data NULL: rows see everything. Takes scratch memory for at most `rows`, in pieces.
void attend(Launch& launch, const AttentionProblem& problem, const View& q, const Attended& attended,
            const View& hidden, const View& out);

// attention() without the fused operator.
void attention_by_rows(Launch& launch, const tm_attention_args& args, const Plan& plan);
void attention_dense_by_rows(Launch& launch, const tm_attention_dense_args& args, const Plan& plan);

}  // namespace turbomind::ascend
